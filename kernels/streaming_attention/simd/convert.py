"""Stored formats of K and V, and loads that widen them to fp32.

A :class:`Storage` is a value without data, like an :class:`~.isa.Isa`: its Numba type says everything, so code for each
format is compiled apart and the widening happens between load and use, in registers.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from streaming_attention.simd.vectors import F32, I8, I16, I32, Vector, emit_constant, emit_load, emit_store


@dataclass(frozen=True)
class Storage:
    """A format of K and V.

    Parameters
    ----------
    name : str
    size : int
        Bytes of an element.
    """

    name: str
    size: int


FP32, BF16, FP16, INT8 = Storage("fp32", 4), Storage("bf16", 2), Storage("fp16", 2), Storage("int8", 1)
WORDS = Storage("words", 4)
"""Pairs of bfloat16 that stay pairs: see :mod:`.bf16`."""
FORMATS = (FP32, BF16, FP16)
"""What Q and O may be stored as too; kernels know a format chosen at run time by its place here."""

_ELEMENT = {"fp32": F32, "bf16": I16, "fp16": ir.HalfType(), "int8": I8, "words": F32}


def format_of(dtype) -> int:
    """Place in :data:`FORMATS` of an array's format; uint16 holds bfloat16, as does the type of that name."""
    if dtype.char == "f":
        return 0
    if dtype.char == "H" or dtype.name == "bfloat16":
        return 1
    if dtype.char == "e":
        return 2
    raise ValueError(f"dtype: {dtype} is not supported; allowed: float32, bfloat16 (or uint16 that holds it), float16")


class StorageType(types.Opaque):
    """Numba type of a :class:`Storage`."""

    def __init__(self, storage: Storage):
        self.storage = storage
        super().__init__(name=f"Storage({storage.name})")


register_model(StorageType)(models.OpaqueModel)


@typeof_impl.register(Storage)
def _typeof(storage, _context):
    return StorageType(storage)


@unbox(StorageType)
def _unbox(_typ, _value, c):
    return NativeValue(c.context.get_dummy_value())


@lower_constant(StorageType)
def _constant(context, _builder, _typ, _value):
    return context.get_dummy_value()


def emit_widening_load(builder, storage: Storage, address, vector: ir.VectorType):
    """A vector of stored values, as fp32."""
    stored = emit_load(builder, address, ir.VectorType(_ELEMENT[storage.name], vector.count), storage.size)
    integers = ir.VectorType(I32, vector.count)
    if storage == BF16:
        return builder.bitcast(builder.shl(builder.zext(stored, integers), emit_constant(integers, 16)), vector)
    if storage == FP16:
        return builder.fpext(stored, vector)
    if storage == INT8:
        return builder.sitofp(builder.sext(stored, integers), vector)
    return stored


def emit_narrowing_store(builder, storage: Storage, value, address):
    """Store a vector of fp32 as `storage`, rounded to nearest even; NaN stays NaN.

    Raises
    ------
    NotImplementedError
        For what isn't fp32, bf16 or fp16: a store can't know the scale of int8.
    """
    if storage == FP16:
        value = builder.fptrunc(value, ir.VectorType(ir.HalfType(), value.type.count))
    elif storage == BF16:
        value = _emit_bf16(builder, value)
    elif storage != FP32:
        raise NotImplementedError(f"storage: {storage.name} can't be rounded to; allowed: fp32, bf16, fp16")
    emit_store(builder, value, address, storage.size)


def _emit_bf16(builder, value):
    """The upper halves, rounded by an integer addition; bits that would round a NaN to infinity are set instead."""
    integers = ir.VectorType(I32, value.type.count)
    bits = builder.bitcast(value, integers)
    odd = builder.and_(builder.lshr(bits, emit_constant(integers, 16)), emit_constant(integers, 1))
    rounded = builder.add(builder.add(bits, emit_constant(integers, 0x7FFF)), odd)
    quiet = builder.or_(bits, emit_constant(integers, 0x400000))
    rounded = builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded)
    return builder.trunc(builder.lshr(rounded, emit_constant(integers, 16)), ir.VectorType(I16, value.type.count))


@intrinsic
def size_of(typingctx, storage):
    """Bytes of an element."""
    return types.int64(storage), lambda _c, _b, _s, _a: ir.IntType(64)(storage.storage.size)


@intrinsic
def load_widened(typingctx, isa, storage, address):
    """The vector of stored values at `address`, as fp32."""

    def codegen(_context, builder, _signature, args):
        return emit_widening_load(builder, storage.storage, args[2], isa.vector)

    return Vector(isa.isa.lanes)(isa, storage, types.int64), codegen


@intrinsic
def load_scalar_widened(typingctx, storage, address):
    """The stored value at `address`, as fp32."""

    def codegen(_context, builder, _signature, args):
        value = emit_widening_load(builder, storage.storage, args[1], ir.VectorType(F32, 1))
        return builder.extract_element(value, I32(0))

    return types.float32(storage, types.int64), codegen


@intrinsic
def store_narrowed(typingctx, storage, vector, address):
    """Store a vector as `storage`; see :func:`emit_narrowing_store`."""

    def codegen(context, builder, _signature, args):
        emit_narrowing_store(builder, storage.storage, *args[1:])
        return context.get_dummy_value()

    return types.void(storage, vector, types.int64), codegen


@intrinsic
def store_scalar_narrowed(typingctx, storage, value, address):
    """Store a number as `storage`; see :func:`emit_narrowing_store`."""

    def codegen(context, builder, _signature, args):
        vector = builder.insert_element(ir.Constant(ir.VectorType(F32, 1), ir.Undefined), args[1], I32(0))
        emit_narrowing_store(builder, storage.storage, vector, args[2])
        return context.get_dummy_value()

    return types.void(storage, types.float32, types.int64), codegen
