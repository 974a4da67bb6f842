"""Register tiles and dot tiles against NumPy."""

import numpy as np
import pytest
from numba import njit

from streaming_attention.simd.convert import BF16, FP16, FP32, INT8
from streaming_attention.simd.dot import dot_tile
from streaming_attention.simd.isa import tile_rows
from streaming_attention.simd.known import Known
from streaming_attention.simd.tile import FULL, multiply_tile


@njit
def _multiply(isa, vectors, a, row_stride, k_stride, valid, b, b_stride, steps, c, c_stride):
    if vectors == 3:
        multiply_tile(isa, FP32, FULL, 3, a, row_stride, k_stride, valid, b, b_stride, steps, c, c_stride, True, 0, 0)
    else:
        multiply_tile(isa, FP32, FULL, 1, a, row_stride, k_stride, valid, b, b_stride, steps, c, c_stride, False, 0, 0)


@pytest.mark.parametrize("steps", [0, 1, 37])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("vectors", [1, 3])
def test_a_tile_is_a_matrix_product(isa, rng, vectors, transposed, steps):
    width = isa.lanes * vectors
    shape = (steps + 1, isa.rows) if transposed else (isa.rows, steps + 1)
    a = rng.standard_normal(shape).astype(np.float32)
    b = rng.standard_normal((steps + 1, width)).astype(np.float32)
    c = rng.standard_normal((isa.rows, width)).astype(np.float32)
    matrix = a.T if transposed else a
    expected = (c if vectors == 3 else 0) + matrix[:, :steps].astype(float) @ b[:steps]
    _multiply(
        isa,
        vectors,
        a.ctypes.data,
        *matrix.strides,
        isa.rows,
        b.ctypes.data,
        4 * width,
        steps,
        c.ctypes.data,
        4 * width,
    )
    np.testing.assert_allclose(c, expected, rtol=0, atol=2e-5)


def test_rows_that_do_not_exist_repeat_the_last_one(isa, rng):
    a = rng.standard_normal((2, 5)).astype(np.float32)
    b = rng.standard_normal((5, isa.lanes)).astype(np.float32)
    c = np.zeros((isa.rows, isa.lanes), np.float32)
    addresses = a.ctypes.data, *a.strides, 2, b.ctypes.data, 4 * isa.lanes, 5, c.ctypes.data, 4 * isa.lanes
    _multiply(isa, 1, *addresses)
    np.testing.assert_allclose(c[:2], a @ b, atol=1e-5)
    assert (c[2:] == c[1]).all()


D64 = Known(64)


@njit
def _dots(isa, storage, q, q_stride, k, k_stride, valid, dims, scores, stride):
    dot_tile(isa, storage, 2, q, q_stride, k, k_stride, valid, dims, scores, stride, k)


@njit
def _known_dots(isa, storage, q, q_stride, k, k_stride, valid, _dims, scores, stride):
    dot_tile(isa, storage, 2, q, q_stride, k, k_stride, valid, D64, scores, stride, k)


def stored(values, storage):
    """Values in a storage format, and what they stand for."""
    if storage is BF16:
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    kept = (
        values.astype({FP32: np.float32, FP16: np.float16}[storage])
        if storage is not INT8
        else (9 * values).astype(np.int8)
    )
    return kept, kept.astype(np.float32)


@pytest.mark.parametrize("storage", [FP32, BF16, FP16, INT8], ids=lambda storage: storage.name)
@pytest.mark.parametrize("known", [False, True])
def test_dot_tiles_widen_what_they_read(isa, rng, storage, known):
    dims, keys = 64 if known else 3 * isa.lanes, isa.lanes // 2
    dots = _known_dots if known else _dots
    q = rng.standard_normal((2, dims)).astype(np.float32)
    k, meant = stored(rng.standard_normal((keys, dims)).astype(np.float32), storage)
    scores = np.zeros((2, keys + 1), np.float32)
    for valid in (keys, 1):
        dots(
            isa, storage, q.ctypes.data, q.strides[0], k.ctypes.data, k.strides[0], valid, dims, scores.ctypes.data,
            scores.strides[0],
        )  # fmt: skip
        seen = [min(key, valid - 1) for key in range(keys)]
        np.testing.assert_allclose(scores[:, :keys], q @ meant[seen].T, rtol=1e-4, atol=1e-4)
        assert not scores[:, keys].any()


def test_a_tile_has_the_rows_that_the_isa_says(isa):
    assert njit(lambda isa: tile_rows(isa))(isa) == isa.rows
