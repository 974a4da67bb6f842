import numpy as np
import pytest
from numba import njit

from streaming_attention.exponential import exp


@njit
def exp_of_all(values):
    results = np.empty_like(values)
    for index in range(values.size):
        results[index] = exp(values[index])
    return results


def test_error_is_below_two_units_in_the_last_place():
    values = np.concatenate([np.linspace(-87, 0, 300_001), -np.logspace(-40, 1.9, 100_001)]).astype(np.float32)
    exact = np.exp(values.astype(np.float64))
    ulps = np.abs(exp_of_all(values) - exact) / np.spacing(exact.astype(np.float32))
    assert ulps.max() < 1.5


@pytest.mark.parametrize(
    "value, expected", [(0.0, 1.0), (-0.0, 1.0), (-87.1, 0.0), (-1e30, 0.0), (-np.inf, 0.0), (np.nan, np.nan)]
)
def test_special_values(value, expected):
    # Among others, so that the vector code meets them too.
    values = np.full(100, -1, np.float32)
    values[50] = value
    np.testing.assert_array_equal(exp_of_all(values)[50], np.float32(expected))
    np.testing.assert_allclose(exp_of_all(values)[[49, 51]], np.exp(-1), rtol=1e-6)
