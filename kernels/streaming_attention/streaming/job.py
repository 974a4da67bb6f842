"""What a kernel is told: one record of addresses, strides in bytes and numbers, filled per call.

Kernels take its address, not arrays: Numba then compiles one version of a kernel whatever the arrays' layouts, and a
call costs one record instead of the unboxing of each array.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

_TENSORS = ["q", "k", "v", "o", "lse", "k_scale", "v_scale"]
_TABLES = ["table", "lengths", "partial", "counters", "sinks", "slopes", "q_starts", "k_starts", "order"]
_STRIDES = [f"{tensor}_{axis}" for tensor in "qkvo" for axis in ("batch", "head", "token", "dim")]
_SIZES = ["batch", "heads", "kv_heads", "queries", "keys", "head_dim"]
_VIEW = ["offset", "left", "right"]
_CUT = ["strips", "block", "splits", "page", "table_stride", "staged", "together"]
_FORMATS = ["q_format", "kv_format", "o_format"]
_FACTORS = ["scale", "softcap"]

JOB = np.dtype(
    [(name, np.int64) for name in (*_TENSORS, *_TABLES, *_STRIDES, *_SIZES, *_VIEW, *_CUT, *_FORMATS)]
    + [(name, np.float64) for name in _FACTORS]
)
"""Fields of the record.

* Addresses, 0 where a call has no such thing, and strides in bytes, in the order (batch, head, token, dim). Of paged
  K and V, ``k_batch`` and ``v_batch`` are the strides of pages.
* ``offset``, ``left``, ``right``: query i stands at key ``i + offset`` and sees `left` keys before and `right` after.
* ``strips``: strips of query rows in one task of prefill; ``block``: keys of a softmax step there.
* ``splits``: splits of the keys in decode; ``together``: K/V heads of a task there.
* ``k_scale``, ``v_scale``: fp32 factors of int8 rows, (batch, kv_heads, keys).
* ``page``: keys of a page; ``table[batch, n]`` (int32, ``table_stride`` bytes between batches) is the page that
  holds keys ``n * page`` and following. ``lengths[batch]`` (int32): keys of each batch.
* ``partial``, ``counters``: results of splits, and how many of them each head has.
* ``sinks``, ``slopes`` (fp32, a head each): an extra logit without a V; ALiBi, a bias of ``-slope * |i + offset - j|``.
* ``q_starts``, ``k_starts`` (int32, batch + 1): where each sequence of a variable-length batch starts.
* ``order`` (int64, a task each): which piece of work a task is, where that is not its number.
* ``kv_format``, and in prefill ``q_format`` and ``o_format`` too: :data:`~..simd.convert.FORMATS`; ``staged``: 1 where
  prefill copies blocks of K and V before it uses them.
* ``scale``: factor on the logits, times log2(e). ``softcap``: logits become ``softcap * tanh(logits / softcap)``.
"""

FACTORS = len(_FACTORS)
"""Fields at the record's end that are fp64; the ones before are int64."""

_RECORD = from_dtype(JOB)


@intrinsic
def job_at(typingctx, address):
    """The record at an address."""

    def codegen(context, builder, _signature, args):
        return builder.inttoptr(args[0], context.get_value_type(_RECORD))

    return _RECORD(types.int64), codegen


_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_DATA = 40
"""Offset of ``data`` in the ``PyArrayInterface`` of NumPy's array protocol, on 64-bit platforms."""


def address(array: np.ndarray) -> int:
    """Address of an array's first element, in half the microsecond that ``array.ctypes.data`` takes."""
    return ctypes.c_int64.from_address(_capsule_pointer(array.__array_struct__, None) + _DATA).value
