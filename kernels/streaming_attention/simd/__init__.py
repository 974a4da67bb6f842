"""Vector code for Numba as LLVM IR. The only place in the package that knows about registers."""

import numba

jit = numba.njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that kernels call: compiled into the kernel, which alone is cached and callable from outside."""
