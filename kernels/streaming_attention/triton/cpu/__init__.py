"""A compiler from Triton's IR (TTIR) to native code, in Python: parse, plan, lower to LLVM IR, run on threads.

Nothing here imports Triton; :mod:`streaming_attention.triton.plugin` is what Triton itself loads.

Reading order: :mod:`ir`, :mod:`parser` (text to operations), :mod:`plan` (which tensors get memory), :mod:`lanes`
(what one vector of a tensor looks like), :mod:`lower` with :mod:`pointwise`, :mod:`memory`, :mod:`reduce`,
:mod:`dot`, :mod:`control` (operations to LLVM IR), :mod:`engine` (LLVM IR to machine code), :mod:`pool`
(programs of a grid over threads).
"""
