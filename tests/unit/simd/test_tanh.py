"""tanh against NumPy in float64."""

import numpy as np
from numba import njit

from streaming_attention.simd.isa import lanes
from streaming_attention.simd.tanh import tanh
from streaming_attention.simd.vectors import load, store


@njit
def _apply(isa, source, target, count):
    for i in range(0, count, lanes(isa)):
        store(tanh(load(isa, source + 4 * i)), target + 4 * i)


def run(isa, values):
    padded = np.resize(np.asarray(values, np.float32), -(-len(values) // 16) * 16)
    out = np.empty_like(padded)
    _apply(isa, padded.ctypes.data, out.ctypes.data, len(padded))
    return out[: len(values)]


def test_error(isa):
    x = np.concatenate([np.linspace(-12, 12, 400_001), np.linspace(-1, 1, 400_001), np.geomspace(1e-30, 1, 10_000)])
    x = x[x != 0].astype(np.float32)
    assert np.abs(run(isa, x) / np.tanh(x.astype(np.float64)) - 1).max() < 2 * 2.0**-23


def test_ends(isa):
    x = [0, np.inf, -np.inf, 1e38, -1e38, 30]
    np.testing.assert_array_equal(run(isa, x), [0, 1, -1, 1, -1, 1])
    assert np.isnan(run(isa, [np.nan])).all()
