"""Attention in Triton, and what runs Triton on a CPU.

* :mod:`streaming_attention.triton.cpu`: the compiler; needs nothing beyond this package's own dependencies.
* :mod:`streaming_attention.triton.plugin`: the same as a backend of the installed Triton.
* :mod:`streaming_attention.triton.kernels`: Triton source of attention; needs Triton to be read.
* :mod:`streaming_attention.triton.prebuilt`: those kernels as TTIR, so that they run without Triton.
* :mod:`streaming_attention.triton.attention`: the functions that call them.

A kernel of your own, in five lines::

    import numpy as np, triton, triton.language as tl, streaming_attention.triton
    streaming_attention.triton.activate()
    @triton.jit
    def double(x, n, BLOCK: tl.constexpr): ...
    double[(blocks,)](array, array.size, BLOCK=1024)
"""

from __future__ import annotations


def activate() -> None:
    """Make the CPU what Triton runs on in this process, whatever else the machine has."""
    from triton.backends import backends
    from triton.runtime.driver import driver

    from streaming_attention.triton.plugin import NAME

    if NAME not in backends:
        raise RuntimeError(f"Triton doesn't see the backend {NAME}: is streaming-attention installed (pip install .)?")
    driver.set_active(backends[NAME].driver())


def set_threads(threads: int) -> None:
    """How many threads a launch uses; see :func:`streaming_attention.triton.cpu.kernel.set_threads`."""
    from streaming_attention.triton.cpu import kernel

    kernel.set_threads(threads)
