"""Stored formats of K and V, and loads that convert them to fp32."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .vectors import F32, I8, I32, Vector, emit_constant, emit_load

FP32, BF16, FP16, INT8 = range(4)
SIZES = {FP32: 4, BF16: 2, FP16: 2, INT8: 1}
"""Bytes of an element."""

_I16, _HALF = ir.IntType(16), ir.HalfType()
_STORED = {FP32: F32, BF16: _I16, FP16: _HALF, INT8: I8}


@intrinsic(prefer_literal=True)
def load_as_f32(typingctx, isa, storage, address):
    """A vector of stored values as fp32 (`storage` is literal)."""
    kind = storage.literal_value

    def codegen(_context, builder, _signature, args):
        stored = ir.VectorType(_STORED[kind], isa.isa.lanes)
        return _widen(builder, kind, emit_load(builder, args[2], stored, SIZES[kind]), isa.vector)

    return Vector(isa.isa.lanes)(isa, storage, types.int64), codegen


@intrinsic(prefer_literal=True)
def load_scalar_as_f32(typingctx, storage, address):
    """One stored value as fp32."""
    kind = storage.literal_value

    def codegen(_context, builder, _signature, args):
        one = ir.VectorType(_STORED[kind], 1)
        value = _widen(builder, kind, emit_load(builder, args[1], one, SIZES[kind]), ir.VectorType(F32, 1))
        return builder.extract_element(value, I32(0))

    return types.float32(storage, types.int64), codegen


def _widen(builder, kind: int, stored, vector: ir.VectorType):
    integers = ir.VectorType(I32, vector.count)
    if kind == BF16:
        high = builder.shl(builder.zext(stored, integers), emit_constant(integers, 16))
        return builder.bitcast(high, vector)
    if kind == FP16:
        return builder.fpext(stored, vector)
    if kind == INT8:
        return builder.sitofp(builder.sext(stored, integers), vector)
    return stored
