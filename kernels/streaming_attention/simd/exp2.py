"""exp2 on vectors: 2**x = 2**n * 2**f with n = round(x) and f in [-1/2, 1/2], a polynomial for 2**f."""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from streaming_attention.simd.vectors import I32, emit_constant, emit_fma, emit_max

# Minimax in relative error (9.2e-8) on [-1/2, 1/2], constant term fixed at 1 so that exp2(0) is exactly 1.
COEFFICIENTS = (1.0, 0.69314700365, 0.24022242427, 0.05550733581, 0.00967151299, 0.00132647273)
LOWEST = -127.0
"""Below this the result is 0: 2**-127 has an all-zero exponent, so the exponent trick gives exactly 0."""
MAGIC = 1.5 * 2**23
"""Adding it rounds to an integer, which then stands in the low mantissa bits."""


def emit_exp2(builder, x):
    """2**x for x <= 127; 0 below -126 (subnormal results may be anything below 2**-126); NaN stays NaN.

    The exponent is added as an integer, which works on every target. AVX-512's ``scalef`` in its place was no
    faster on Zen 5 (5.1 cycles per vector of 16 for both, load, subtraction, sum and store included).
    """
    vector = x.type
    integers = ir.VectorType(I32, vector.count)
    x = emit_max(builder, emit_constant(vector, LOWEST), x)
    magic = emit_constant(vector, MAGIC)
    shifted = builder.fadd(x, magic)
    fraction = builder.fsub(x, builder.fsub(shifted, magic))
    power = emit_constant(vector, COEFFICIENTS[-1])
    for coefficient in COEFFICIENTS[-2::-1]:
        power = emit_fma(builder, power, fraction, emit_constant(vector, coefficient))
    exponent = builder.shl(builder.bitcast(shifted, integers), emit_constant(integers, 23))
    return builder.bitcast(builder.add(builder.bitcast(power, integers), exponent), vector)


@intrinsic
def exp2(typingctx, x):
    """2**x, lane by lane; see :func:`emit_exp2` for its range."""

    def codegen(_context, builder, _signature, args):
        return emit_exp2(builder, *args)

    return x(x), codegen
