"""What Triton loads through its entry-point group ``triton.backends``, under the name ``streaming_cpu``."""

NAME = "streaming_cpu"
