"""exp2 on vectors: 2**x = 2**n * 2**f with n = round(x) and f in [-1/2, 1/2], a polynomial for 2**f."""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from streaming_attention.simd.vectors import I16, I32, emit_constant, emit_fma, emit_max, llvm_call

# Minimax in relative error (9.2e-8) on [-1/2, 1/2], constant term fixed at 1 so that exp2(0) is exactly 1.
COEFFICIENTS = (1.0, 0.69314700365, 0.24022242427, 0.05550733581, 0.00967151299, 0.00132647273)
LOWEST = -127.0
"""Below this the result is 0: 2**-127 has an all-zero exponent, so the exponent trick gives exactly 0."""
MAGIC = 1.5 * 2**23
"""Adding it rounds to an integer, which then stands in the low mantissa bits."""
FINE_COEFFICIENTS = (1.0, 0.69314720319, 0.24022647907, 0.05550332470, 0.00961843736, 0.00133988744, 0.00015353362)
"""One degree more (2.0e-9): with AVX-512's own instructions there is time for it."""
TO_NEAREST, TO_FLOOR = 8, 9
"""``vreduceps``: what is left beside the nearest integer, or above the floor, without an exception."""


def emit_exp2(builder, x):
    """2**x for x <= 127; 0 below -150 (subnormal results may be anything below 2**-126); NaN stays NaN."""
    return emit_exp2_avx512(builder, x) if x.type.count == 16 else emit_exp2_portable(builder, x)


def emit_exp2_avx512(builder, x):
    """x split by ``vreduceps`` and put together by ``vscalefps``: 11 operations.

    At the nearest integer, not at the floor, so that a result just below 1 is as exact as 1.

    The polynomial's upper part is summed by halves (Estrin), a shorter chain of dependent operations than Horner's; its
    last step is one multiply-add, so that nothing is rounded twice beside the 1.
    """
    fraction = emit_fraction(builder, x, TO_NEAREST)
    c0, *others = (emit_constant(x.type, coefficient) for coefficient in FINE_COEFFICIENTS)
    square = builder.fmul(fraction, fraction)
    low, middle, high = (emit_fma(builder, b, fraction, a) for a, b in zip(others[::2], others[1::2], strict=True))
    slope = emit_fma(builder, emit_fma(builder, high, square, middle), square, low)
    return emit_scale(builder, emit_fma(builder, slope, fraction, c0), builder.fsub(x, fraction))


def emit_fraction(builder, x, rounding: int):
    """x without its integer part, by AVX-512; 0 at -inf. `rounding` says which integer."""
    name = "llvm.x86.avx512.mask.reduce.ps.512"
    return llvm_call(builder, name, x.type, x, I32(rounding), _unused(x.type), I16(-1), I32(4))


def emit_scale(builder, power, x):
    """power * 2**floor(x) by AVX-512."""
    name = "llvm.x86.avx512.mask.scalef.ps.512"
    return llvm_call(builder, name, x.type, power, x, _unused(x.type), I16(-1), I32(4))


def _unused(vector):
    return ir.Constant(vector, ir.Undefined)


def emit_exp2_portable(builder, x):
    """The exponent is added as an integer, which works on every target."""
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
