"""Vectors as values in jitted code: a Numba type, loads and stores at addresses, arithmetic.

Addresses are int64 in bytes. A vector is one register of the ISA; ``a * b + c`` is two operations, ``fma(a, b, c)``
one. Nothing here checks bounds.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

F32, I8, I16, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
LINE = 64
"""Bytes of a cache line, for prefetching."""


class Vector(types.Type):
    """`lanes` fp32 values in one register."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(name=f"Vector({lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(F32, fe_type.lanes))


# --- building blocks for code that emits LLVM IR -----------------------------------------------------------------


def llvm_call(builder, name: str, result: ir.Type, *arguments):
    """Call an LLVM intrinsic under its mangled name (``declare_intrinsic`` rejects vector types)."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)


def mangled(vector: ir.VectorType) -> str:
    """Suffix of an overloaded LLVM intrinsic: ``v16f32``."""
    letter = "f" if isinstance(vector.element, ir.FloatType) else "i"
    return f"v{vector.count}{letter}32"


def emit_constant(vector: ir.VectorType, value) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


def emit_splat(builder, vector: ir.VectorType, scalar):
    """All lanes set to `scalar`; of a loaded value this becomes one broadcast load."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vector.count), None))


def emit_pointer(builder, address, pointee: ir.Type):
    return builder.inttoptr(address, pointee.as_pointer())


def emit_load(builder, address, typ: ir.Type, align: int = 4):
    return builder.load(emit_pointer(builder, address, typ), align=align)


def emit_store(builder, value, address, align: int = 4):
    return builder.store(value, emit_pointer(builder, address, value.type), align=align)


def emit_fma(builder, a, b, c):
    return llvm_call(builder, f"llvm.fma.{mangled(a.type)}", a.type, a, b, c)


def emit_max(builder, a, b):
    """The larger; `b` where either is NaN, so that the second operand decides what a NaN does."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def emit_prefetch(builder, address):
    """Ask for the cache line at `address`, in every cache level. A bad address is ignored."""
    llvm_call(builder, "llvm.prefetch.p0", ir.VoidType(), emit_pointer(builder, address, I8), I32(0), I32(3), I32(1))


# --- what jitted code calls --------------------------------------------------------------------------------------


@intrinsic
def load(typingctx, isa, address):
    """The vector at `address`, any alignment."""

    def codegen(_context, builder, _signature, args):
        return emit_load(builder, args[1], isa.vector)

    return Vector(isa.isa.lanes)(isa, types.int64), codegen


@intrinsic
def store(typingctx, vector, address):
    def codegen(context, builder, _signature, args):
        emit_store(builder, *args)
        return context.get_dummy_value()

    return types.void(vector, types.int64), codegen


@intrinsic
def splat(typingctx, isa, value):
    """`value` in every lane."""

    def codegen(_context, builder, _signature, args):
        return emit_splat(builder, isa.vector, args[1])

    return Vector(isa.isa.lanes)(isa, types.float32), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c``, rounded once."""

    def codegen(_context, builder, _signature, args):
        return emit_fma(builder, *args)

    return a(a, b, c), codegen


@intrinsic
def maximum(typingctx, a, b):
    """The larger, lane by lane; `b` where either is NaN."""

    def codegen(_context, builder, _signature, args):
        return emit_max(builder, *args)

    return a(a, b), codegen


@intrinsic
def absolute(typingctx, a):
    """|a|, lane by lane."""

    def codegen(_context, builder, _signature, args):
        return llvm_call(builder, f"llvm.fabs.{mangled(args[0].type)}", args[0].type, *args)

    return a(a), codegen


@intrinsic
def lane_numbers(typingctx, isa):
    """0, 1, 2, ... as fp32."""

    def codegen(_context, _builder, _signature, _args):
        return ir.Constant(isa.vector, [F32(lane) for lane in range(isa.isa.lanes)])

    return Vector(isa.isa.lanes)(isa), codegen


@intrinsic
def any_greater(typingctx, a, b):
    """Whether ``a > b`` in any lane."""

    def codegen(_context, builder, _signature, args):
        bits = builder.bitcast(builder.fcmp_ordered(">", *args), ir.IntType(a.lanes))
        return builder.icmp_unsigned("!=", bits, bits.type(0))

    return types.boolean(a, b), codegen


@intrinsic
def raised(typingctx, old, new, slack):
    """`new` in lanes where it is more than `slack` greater than `old`, else `old`; `old` where `new` is NaN."""

    def codegen(_context, builder, _signature, args):
        old, new, slack = args
        return builder.select(builder.fcmp_ordered(">", new, builder.fadd(old, slack)), new, old)

    return old(old, new, slack), codegen


@intrinsic
def keep_between(typingctx, vector, first, last, position, other):
    """Lanes with ``first <= position < last``; `other` in the rest.

    `first` and `last` are vectors whose fp32 hold the bits of int32 numbers.
    """

    def codegen(_context, builder, _signature, args):
        integers = ir.VectorType(I32, vector.lanes)
        first, last = (builder.bitcast(bound, integers) for bound in args[1:3])
        at = emit_splat(builder, integers, builder.trunc(args[3], I32))
        inside = builder.and_(builder.icmp_signed(">=", at, first), builder.icmp_signed("<", at, last))
        return builder.select(inside, args[0], args[4])

    return vector(vector, vector, vector, types.int64, vector), codegen


@intrinsic
def distance(typingctx, isa, positions, place):
    """``|position - place|`` of every lane; `positions` is a vector whose fp32 hold the bits of int32 numbers."""

    def codegen(_context, builder, _signature, args):
        integers = ir.VectorType(I32, isa.isa.lanes)
        at = emit_splat(builder, integers, builder.trunc(args[2], I32))
        gap = builder.sub(builder.bitcast(args[1], integers), at)
        back = builder.sub(emit_constant(integers, 0), gap)
        return builder.sitofp(builder.select(builder.icmp_signed(">", gap, back), gap, back), isa.vector)

    return positions(isa, positions, types.int64), codegen


@intrinsic
def first_lane(typingctx, vector):
    def codegen(_context, builder, _signature, args):
        return builder.extract_element(args[0], I32(0))

    return types.float32(vector), codegen


@intrinsic
def lane_sum(typingctx, vector):
    """Sum over the lanes, as a tree (a fixed order)."""

    def codegen(_context, builder, _signature, args):
        (value,) = args
        return _reduce(builder, value, builder.fadd)

    return types.float32(vector), codegen


@intrinsic
def lane_max(typingctx, vector):
    """Largest lane."""

    def codegen(_context, builder, _signature, args):
        (value,) = args
        return _reduce(builder, value, lambda a, b: emit_max(builder, a, b))

    return types.float32(vector), codegen


def _reduce(builder, value, combine):
    while value.type.count > 1:
        half = value.type.count // 2
        index = ir.VectorType(I32, half)
        low, high = (
            builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), ir.Constant(index, list(lanes)))
            for lanes in (range(half), range(half, 2 * half))
        )
        value = combine(low, high)
    return builder.extract_element(value, I32(0))


def _operator(function, method: str):
    """Give ``vector <op> vector`` its meaning."""

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, _kws):
            if len(args) == 2 and all(isinstance(argument, Vector) for argument in args):
                return signature(args[0], *args)
            return None

    @lower_builtin(function, Vector, Vector)
    def _lower(_context, builder, _signature, args):
        return getattr(builder, method)(*args)


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")
