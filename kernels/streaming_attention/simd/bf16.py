"""Pairs of bfloat16 (AVX512_BF16): one instruction multiplies 32 of them with 32 others into 16 fp32 sums.

A *word* is 32 bits that hold two bfloat16 that are neighbours along a sum, the first one in the low half. Vectors of
words travel as vectors of fp32 with which only :func:`emit_dot` computes. The instruction takes subnormal inputs as 0
and rounds to nearest even.
"""

from __future__ import annotations

from llvmlite import ir

from streaming_attention.simd.exp2 import TO_FLOOR, emit_fraction, emit_scale
from streaming_attention.simd.vectors import I16, I32, emit_constant, emit_fma, llvm_call

# Minimax in relative error (2.9e-6) of 2**f on [0, 1], constant term fixed at 1.
SHORT_COEFFICIENTS = (1.0, 0.6930448449, 0.24128020478, 0.052242474179, 0.013426684292)


class BFloatType(ir.Type):
    """LLVM's ``bfloat``, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, type(self))

    def __hash__(self):
        return hash(type(self))


def emit_dot(builder, a, b, sums):
    """``sums[i] + a[i].low * b[i].low + a[i].high * b[i].high`` for 16 words and 16 fp32 sums."""
    halves = ir.VectorType(BFloatType(), 2 * sums.type.count)
    a, b = builder.bitcast(a, halves), builder.bitcast(b, halves)
    return llvm_call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", sums.type, sums, a, b)


def emit_short_exp2(builder, x):
    """2**x to 3e-6, for weights that become bfloat16 (unit in the last place: 4e-3); 0 at -inf, NaN stays NaN.

    A degree less than :func:`.exp2.emit_exp2_avx512`, split at the floor.
    """
    fraction = emit_fraction(builder, x, TO_FLOOR)
    power = emit_constant(x.type, SHORT_COEFFICIENTS[-1])
    for coefficient in SHORT_COEFFICIENTS[-2::-1]:
        power = emit_fma(builder, power, fraction, emit_constant(x.type, coefficient))
    return emit_scale(builder, power, x)


def emit_words(builder, low, high):
    """Words of two vectors of fp32, rounded to nearest even."""
    lanes = low.type.count
    halves = ir.VectorType(BFloatType(), 2 * lanes)
    rounded = llvm_call(builder, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", halves, high, low)
    rounded = builder.bitcast(rounded, ir.VectorType(I16, 2 * lanes))
    order = [lane + half for lane in range(lanes) for half in (0, lanes)]
    mask = ir.Constant(ir.VectorType(I32, 2 * lanes), order)
    return builder.bitcast(builder.shuffle_vector(rounded, rounded, mask), low.type)


def emit_halves(builder, vector):
    """A vector of fp32 as bfloat16, rounded to nearest even."""
    halves = ir.VectorType(BFloatType(), vector.type.count)
    rounded = llvm_call(builder, "llvm.x86.avx512bf16.cvtneps2bf16.512", halves, vector)
    return builder.bitcast(rounded, ir.VectorType(I16, vector.type.count))


def emit_interleave(builder, low, high):
    """Words of two vectors of 16-bit numbers, as fp32."""
    lanes = low.type.count
    order = [lane + half for lane in range(lanes) for half in (0, lanes)]
    mask = ir.Constant(ir.VectorType(I32, 2 * lanes), order)
    return builder.bitcast(builder.shuffle_vector(low, high, mask), ir.VectorType(ir.FloatType(), lanes))
