"""Compiled functions by address, so that a launch costs no type inspection and kernels can be handed to threads.

The functions take an :class:`~.isa.Isa` first and int64 after it, and return nothing or an int64. Calling one through
:func:`callable_from` releases the interpreter's lock; with it a smallest call on two threads
took 15.2 microseconds, with Numba's dispatcher 18.8 (Zen 5).
"""

from __future__ import annotations

import ctypes
from functools import cache

from numba import types

from streaming_attention.simd.isa import Isa, IsaType, sources_digest


@cache
def address_of(function, isa: Isa, integers: int, returns: bool = False) -> int:
    """Address of a jitted function for C callers; compiles it, or loads it from Numba's cache.

    Parameters
    ----------
    function : Dispatcher
    isa : Isa
    integers : int
        How many int64 arguments follow the ISA.
    returns : bool
        Whether it returns an int64.
    """
    result = types.int64 if returns else types.void
    signature = result(IsaType(isa, sources_digest()), *[types.int64] * integers)
    compiled = function.get_compile_result(signature)
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


@cache
def callable_from(function, isa: Isa, integers: int, returns: bool = False):
    """The same as a Python callable of the integers alone. For an address it takes a ``bytes`` object as well."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64 if returns else None, *[ctypes.c_void_p] * (1 + integers))
    address = address_of(function, isa, integers, returns)
    return _bind(prototype(address))


def _bind(function):
    return lambda *integers: function(None, *integers)
