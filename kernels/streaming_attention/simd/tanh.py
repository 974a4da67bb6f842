"""tanh on vectors: an odd polynomial near 0, where 1 - 2 / (e**2x + 1) would cancel, and that formula elsewhere."""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from streaming_attention.simd.exp2 import emit_exp2
from streaming_attention.simd.vectors import I32, emit_constant, emit_fma, llvm_call, mangled

# Minimax in relative error (4e-9) of (tanh(x) / x - 1) / x**2 in powers of x**2 on [0, NEAR].
COEFFICIENTS = (-0.333332807, 0.133314416, -0.0537397154, 0.0206390861, -0.00570498547)
NEAR = 0.625
FAR = 20.0
"""From here on tanh is 1 in fp32."""
TWO_LOG2_E = 2.8853900817779268
SIGN = -(2**31)


def emit_tanh(builder, x):
    """tanh(x) within 2 ulps; NaN stays NaN."""
    vector = x.type
    one = emit_constant(vector, 1.0)
    square = builder.fmul(x, x)
    series = emit_constant(vector, COEFFICIENTS[-1])
    for coefficient in COEFFICIENTS[-2::-1]:
        series = emit_fma(builder, series, square, emit_constant(vector, coefficient))
    near = emit_fma(builder, builder.fmul(series, square), x, x)
    size = llvm_call(builder, f"llvm.fabs.{mangled(vector)}", vector, x)
    bounded = builder.select(
        builder.fcmp_ordered(">", size, emit_constant(vector, FAR)), emit_constant(vector, FAR), size
    )
    power = emit_exp2(builder, builder.fmul(bounded, emit_constant(vector, TWO_LOG2_E)))
    far = builder.fsub(one, builder.fdiv(emit_constant(vector, 2.0), builder.fadd(power, one)))
    integers = ir.VectorType(I32, vector.count)
    sign = builder.and_(builder.bitcast(x, integers), emit_constant(integers, SIGN))
    far = builder.bitcast(builder.or_(builder.bitcast(far, integers), sign), vector)
    return builder.select(builder.fcmp_ordered("<", size, emit_constant(vector, NEAR)), near, far)


@intrinsic
def tanh(typingctx, x):
    """tanh, lane by lane."""

    def codegen(_context, builder, _signature, args):
        return emit_tanh(builder, *args)

    return x(x), codegen
