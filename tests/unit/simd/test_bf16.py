"""Products of pairs of bfloat16, and rounding to 16 bits."""

import numpy as np
import pytest
from numba import njit
from textbook import from_bf16, meaning, rounding_to, to_bf16

from streaming_attention.simd.convert import BF16, FP16, WORDS, format_of, store_narrowed, store_scalar_narrowed
from streaming_attention.simd.isa import AVX512_BF16, lanes
from streaming_attention.simd.memory import load_f32
from streaming_attention.simd.operand import exp2_for, interleave, multiply_add, words
from streaming_attention.simd.vectors import load, store

needs_dot = pytest.mark.skipif(bool(AVX512_BF16.missing()), reason="this CPU has no bf16 dot product")


@njit
def _words(isa, low, high, target):
    store(words(WORDS, load(isa, low), load(isa, high)), target)


@njit
def _dot(isa, a, b, sums):
    store(multiply_add(WORDS, load(isa, a), load(isa, b), load(isa, sums)), sums)


@njit
def _exp2(isa, source, target, count):
    for i in range(0, count, lanes(isa)):
        store(exp2_for(WORDS, load(isa, source + 4 * i)), target + 4 * i)


@njit
def _interleave(isa, low, high, target):
    interleave(isa, low, high, target)


@needs_dot
def test_words_hold_two_rounded_numbers(rng):
    low, high = rng.standard_normal((2, 16)).astype(np.float32)
    out = np.empty((16, 2), np.uint16)
    _words(AVX512_BF16, low.ctypes.data, high.ctypes.data, out.ctypes.data)
    np.testing.assert_array_equal(out, np.stack([to_bf16(low), to_bf16(high)], axis=1))


@needs_dot
def test_a_dot_adds_both_halves(rng):
    a, b = to_bf16(rng.standard_normal((2, 16, 2)))
    sums = np.ones(16, np.float32)
    _dot(AVX512_BF16, a.ctypes.data, b.ctypes.data, sums.ctypes.data)
    np.testing.assert_allclose(sums, 1 + (from_bf16(a) * from_bf16(b)).sum(1), rtol=1e-6, atol=1e-6)


@needs_dot
def test_short_exp2():
    x = np.linspace(-100, 1, 160_000).astype(np.float32)
    out = np.empty_like(x)
    _exp2(AVX512_BF16, x.ctypes.data, out.ctypes.data, len(x))
    assert np.abs(out / np.exp2(x.astype(np.float64)) - 1).max() < 3.1e-6
    x[:4] = 0, -np.inf, np.nan, -1e38
    _exp2(AVX512_BF16, x.ctypes.data, out.ctypes.data, 16)
    np.testing.assert_array_equal(out[:4], [1, 0, np.nan, 0])


def test_interleaved_rows(isa):
    low, high = np.arange(2 * isa.lanes, dtype=np.uint16).reshape(2, -1)
    out = np.empty((isa.lanes, 2), np.uint16)
    _interleave(isa, low.ctypes.data, high.ctypes.data, out.ctypes.data)
    np.testing.assert_array_equal(out, np.stack([low, high], axis=1))


@njit
def _narrow(isa, storage, source, target, count):
    for i in range(0, count, lanes(isa)):
        store_narrowed(storage, load(isa, source + 4 * i), target + 2 * i)


@njit
def _narrow_scalar(storage, source, target, count):
    for i in range(count):
        store_scalar_narrowed(storage, load_f32(source + 4 * i), target + 2 * i)


@pytest.mark.parametrize("storage, name", [(BF16, "bf16"), (FP16, "fp16")])
def test_rounding_to_nearest_even(isa, rng, storage, name):
    x = (rng.standard_normal(4096) * 10.0 ** rng.integers(-6, 6, 4096)).astype(np.float32)
    x[:8] = np.inf, -np.inf, np.nan, 0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38
    bits = x.view(np.uint32)
    bits[8] = 0x7F800001  # a NaN whose upper half is infinity's
    out = np.empty(len(x), np.uint16 if storage is BF16 else np.float16)
    with np.errstate(over="ignore"):
        expected = rounding_to(name)(x)
    for narrow in (lambda *a: _narrow(isa, *a), _narrow_scalar):
        narrow(storage, x.ctypes.data, out.ctypes.data, len(x))
        np.testing.assert_array_equal(meaning(out), expected)


def test_formats_by_dtype():
    assert [format_of(np.dtype(kind)) for kind in (np.float32, np.uint16, np.float16)] == [0, 1, 2]
    with pytest.raises(ValueError, match="float64 is not supported; allowed: float32"):
        format_of(np.dtype(np.float64))
