"""A compiler from Triton's IR (TTIR) to native code, in Python: parse, plan, lower to LLVM IR, run on threads.

Nothing here imports Triton; :mod:`streaming_attention.triton.plugin` is what Triton itself loads.

Reading order: :mod:`ir` with :mod:`expressions`; :mod:`parser` with :mod:`text` (TTIR to operations); :mod:`plan` with
:mod:`steps` and :mod:`share` (which tensors get memory); :mod:`lanes` (what one vector of a tensor looks like);
:mod:`lower` with :mod:`pointwise`, :mod:`moves`, :mod:`memory`, :mod:`reduce`, :mod:`dot`, :mod:`control`,
:mod:`branches` (operations to LLVM IR); :mod:`engine` (LLVM IR to machine code); :mod:`store` (machine code on disk);
:mod:`kernel` (programs of a grid over the package's pool of threads).
"""

COMPILE_EVENT = "triton:compile"
"""Event of ``numba.core.event`` around every compilation, for whoever wants to know how long they took."""
