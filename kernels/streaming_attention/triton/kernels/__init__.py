"""Attention in plain Triton: ``tl.load``, ``tl.store``, ``tl.dot``, reductions; nothing that only a GPU has.

One source runs on the CPU (through :mod:`streaming_attention.triton.plugin`, or as shipped TTIR without Triton) and
compiles for GPUs. Conventions: tensors are addressed by strides in elements, the last axis being contiguous; scores
are in units of log2 (``scale`` holds a factor of log2(e)), so that softmax takes ``exp2``; ``lse`` goes out in natural
logarithms.
"""
