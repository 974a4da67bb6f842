"""exp2 against NumPy in float64."""

import numpy as np
import pytest
from numba import njit

from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.vectors import load, store


@njit
def _apply(isa, source, target, count):
    for i in range(0, count, lanes(isa)):
        store(exp2(load(isa, source + 4 * i)), target + 4 * i)


def run(isa, values):
    padded = np.resize(np.asarray(values, np.float32), -(-len(values) // 16) * 16)
    out = np.empty_like(padded)
    _apply(isa, padded.ctypes.data, out.ctypes.data, len(padded))
    return out[: len(values)]


def test_relative_error(isa):
    x = np.concatenate([np.linspace(-125.4, 0, 400_001), np.linspace(-1, 1, 400_001)]).astype(np.float32)
    exact = np.exp2(x.astype(np.float64))
    assert np.abs(run(isa, x) / exact - 1).max() < 1.5 * 2.0**-23


@pytest.mark.parametrize("x, expected", [(0, 1), (-1, 0.5), (10, 1024), (-np.inf, 0), (-151, 0), (-1e38, 0)])
def test_exact_values(isa, x, expected):
    assert run(isa, [x]) == np.float32(expected)


@pytest.mark.parametrize("x", [-126.5, -127, -140, -150])
def test_what_is_too_small_for_a_normal_number_is_nearly_nothing(isa, x):
    assert 0 <= run(isa, [x]) < 2.0**-126


def test_nan_stays_nan(isa):
    assert np.isnan(run(isa, [np.nan, 0])).tolist() == [True, False]
