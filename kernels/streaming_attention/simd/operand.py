"""What the two kinds of tile need besides the tile: fp32 operands, or words of two bfloat16.

`tile` says which: :data:`~.convert.FP32` or :data:`~.convert.WORDS`. Code is written once and compiled for each.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.bf16 import emit_dot, emit_halves, emit_interleave, emit_short_exp2, emit_words
from streaming_attention.simd.convert import BF16, FP32, WORDS, StorageType
from streaming_attention.simd.exp2 import emit_exp2
from streaming_attention.simd.vectors import (
    I16,
    I32,
    Vector,
    emit_constant,
    emit_fma,
    emit_load,
    emit_splat,
    emit_store,
)


@intrinsic
def are_words(typingctx, tile):
    """Whether operands hold two numbers in 32 bits."""
    return types.boolean(tile), lambda _c, _b, _s, _a: ir.IntType(1)(tile.storage == WORDS)


@intrinsic
def multiply_add(typingctx, tile, a, b, sums):
    """``a * b + sums``, of words the sum over both halves."""

    def codegen(_context, builder, _signature, args):
        return (emit_dot if tile.storage == WORDS else emit_fma)(builder, *args[1:])

    return sums(tile, a, b, sums), codegen


@intrinsic
def exp2_for(typingctx, tile, x):
    """2**x as exactly as the operand can hold."""

    def codegen(_context, builder, _signature, args):
        return (emit_short_exp2 if tile.storage == WORDS else emit_exp2)(builder, args[1])

    return x(tile, x), codegen


@intrinsic
def words(typingctx, tile, low, high):
    """Two vectors of fp32 as one of words; of no use, and not to be run, where operands are fp32."""

    def codegen(_context, builder, _signature, args):
        return emit_words(builder, *args[1:]) if tile.storage == WORDS else args[1]

    return low(tile, low, high), codegen


@intrinsic
def store_operand(typingctx, tile, vector, address):
    """Store a vector of fp32 as fp32, or as bfloat16 where lanes side by side make words."""

    def codegen(context, builder, _signature, args):
        _, value, address = args
        words = tile.storage == WORDS
        emit_store(builder, emit_halves(builder, value) if words else value, address, 2 if words else 4)
        return context.get_dummy_value()

    return types.void(tile, vector, types.int64), codegen


@intrinsic
def storage_of(typingctx, tile):
    """Format in memory of what operands are made of: fp32, or bfloat16 where they are words."""
    storage = StorageType(BF16 if tile.storage == WORDS else FP32)
    return storage(tile), lambda context, _builder, _signature, _args: context.get_dummy_value()


@intrinsic
def interleave(typingctx, isa, low, high, target):
    """Store words whose halves are the 16-bit numbers at the addresses `low` and `high`, a vector of them."""

    def codegen(context, builder, _signature, args):
        halves = [emit_load(builder, address, ir.VectorType(I16, isa.isa.lanes), 2) for address in args[1:3]]
        emit_store(builder, emit_interleave(builder, *halves), args[3])
        return context.get_dummy_value()

    return types.void(isa, types.int64, types.int64, types.int64), codegen


@intrinsic
def splat_seen(typingctx, isa, tile, value, first, last, key):
    """`value` (fp32 or a word's bits) in lanes that see `key`, 0 in the others; of a word, each half by its own key.

    `first` and `last` are vectors whose fp32 hold the bits of int32 numbers: a lane sees ``first <= key < last``.
    """

    def codegen(_context, builder, _signature, args):
        _, _, value, first, last, key = args
        integers = ir.VectorType(I32, isa.isa.lanes)
        bounds = [builder.bitcast(bound, integers) for bound in (first, last)]
        if tile.storage == WORDS:
            low = _emit_seen_bits(builder, bounds, key, 0x0000FFFF)
            high = _emit_seen_bits(builder, bounds, builder.add(key, key.type(1)), 0xFFFF0000)
            seen = builder.or_(low, high)
        else:
            seen = _emit_seen_bits(builder, bounds, key, 0xFFFFFFFF)
        bits = builder.bitcast(emit_splat(builder, isa.vector, value), integers)
        return builder.bitcast(builder.and_(bits, seen), isa.vector)

    vector = Vector(isa.isa.lanes)
    return vector(isa, tile, types.float32, vector, vector, types.int64), codegen


def _emit_seen_bits(builder, bounds, key, bits: int):
    """`bits` in lanes that see the key, else 0."""
    integers = bounds[0].type
    at = emit_splat(builder, integers, builder.trunc(key, I32))
    seen = builder.and_(builder.icmp_signed(">=", at, bounds[0]), builder.icmp_signed("<", at, bounds[1]))
    return builder.select(seen, emit_constant(integers, bits), emit_constant(integers, 0))
