"""exp for softmax weights, in a form that LLVM turns into vector code.

``np.exp`` in a Numba loop is a call per element (Intel's SVML is not in the wheels): measured 14 times slower.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_LOG2_E = np.float32(1.4426950408889634)
# Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits; no conversion that NaN could trip over.
_ROUND = np.float32(1.5 * 2**23)
_ROUND_BITS = np.int32(_ROUND.view(np.int32) - 127)
# ln 2 in two parts: the first has so few bits that its product with an integer below 2^15 is exact.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(0.6931471805599453 - 0.693359375)
# Minimax polynomial for (exp(f) - 1 - f) / f^2 on [-ln 2 / 2, ln 2 / 2] (Moshier, Cephes, expf).
_C5, _C4, _C3, _C2, _C1, _C0 = (
    np.float32(c) for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666666e-1, 0.5)
)
_ONE, _ZERO = np.float32(1), np.float32(0)
_SMALLEST = np.float32(-87.0)
_MANTISSA_BITS = np.int32(23)


@njit(nogil=True, fastmath={"contract"}, forceinline=True)
def exp(x):
    """e ** x for x <= 0 in float32, to 1.5 units in the last place; 0 below -87 and for -inf, NaN for NaN."""
    shifted = x * _LOG2_E + _ROUND
    power = shifted - _ROUND
    f = (x - power * _LN2_HIGH) - power * _LN2_LOW
    polynomial = ((((_C5 * f + _C4) * f + _C3) * f + _C2) * f + _C1) * f + _C0
    mantissa = polynomial * f * f + f + _ONE
    # Every step in int32: Numba would widen to int64 and halve the lanes.
    exponent = np.int32(np.int32(np.float32(shifted).view(np.int32) - _ROUND_BITS) << _MANTISSA_BITS)
    return _ZERO if x < _SMALLEST else mantissa * np.int32(exponent).view(np.float32)
