"""Vector code for Numba as LLVM IR. The only place in the package that knows about registers."""

import numba

jit = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that kernels call: compiled into the kernel, which alone is cached and callable from outside."""

inline = numba.njit(nogil=True, error_model="numpy", inline="always")
"""For steps between a kernel and its tiles: LLVM optimizes all below a `jit` function once more for each such level.
With five levels of decode inlined, and tiles for unknown sizes shared, it compiles in 0.67 of the time (Zen 5)."""
