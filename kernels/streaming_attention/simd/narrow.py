"""Stores that narrow fp32 to a storage format, rounded to nearest even: the reverse of :mod:`.convert`'s loads."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.convert import BF16, FP16, FP32, I16, Storage
from streaming_attention.simd.vectors import F32, I32, emit_constant, emit_store

QUIET_NAN = 0x7FC0
"""A bfloat16 NaN; the rounding below would carry some NaNs into infinity."""


def emit_narrowing_store(builder, storage: Storage, value, address):
    """Store a vector of fp32 in a format.

    Raises
    ------
    NotImplementedError
        For int8, whose scale a store can't know.
    """
    if storage == FP16:
        value = builder.fptrunc(value, ir.VectorType(ir.HalfType(), value.type.count))
    elif storage == BF16:
        value = _emit_bf16(builder, value)
    elif storage != FP32:
        raise NotImplementedError(f"storage: {storage.name} can't be rounded to; allowed: fp32, bf16, fp16")
    emit_store(builder, value, address, storage.size)


def _emit_bf16(builder, value):
    """Upper halves of fp32 after adding half of their last place, less one bit where that place is even."""
    integers, halves = ir.VectorType(I32, value.type.count), ir.VectorType(I16, value.type.count)
    bits = builder.bitcast(value, integers)
    shift = emit_constant(integers, 16)
    odd = builder.and_(builder.lshr(bits, shift), emit_constant(integers, 1))
    rounded = builder.lshr(builder.add(builder.add(bits, emit_constant(integers, 0x7FFF)), odd), shift)
    nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(nan, emit_constant(integers, QUIET_NAN), rounded), halves)


@intrinsic
def store_narrowed(typingctx, storage, vector, address):
    """Store a vector of fp32 in a storage format."""

    def codegen(context, builder, _signature, args):
        emit_narrowing_store(builder, storage.storage, *args[1:])
        return context.get_dummy_value()

    return types.void(storage, vector, types.int64), codegen


@intrinsic
def store_scalar_narrowed(typingctx, storage, value, address):
    """Store one fp32 in a storage format."""

    def codegen(context, builder, _signature, args):
        vector = builder.bitcast(args[1], ir.VectorType(F32, 1))
        emit_narrowing_store(builder, storage.storage, vector, args[2])
        return context.get_dummy_value()

    return types.void(storage, types.float32, types.int64), codegen
