"""The two products of decode, a run of keys at a time: scores = Q K^T and O += weights V.

Lanes run along head_dim. fp32 and narrower formats are read where they lie; ragged head sizes and odd strides are
widened first into a buffer in the L1 cache. While a run is worked on, another one is prefetched, row by row.
"""

from __future__ import annotations

from streaming_attention.simd import jit
from streaming_attention.simd.convert import FP32, size_of
from streaming_attention.simd.dot import dot_tile
from streaming_attention.simd.isa import lanes, tile_rows
from streaming_attention.simd.tile import multiply_tile
from streaming_attention.streaming.keys import is_direct, widen_rows


@jit
def score_run(isa, job, storage, rows, width, q, k, count, scores, stride, stage, fetch):
    """scores[row, key] of `count` keys, rows `stride` bytes apart; space for a whole run."""
    if is_direct(isa, job, storage, job.k_dim):
        _score(isa, storage, rows, width, q, k, job.k_token, count, scores, stride, fetch)
    else:
        widen_rows(isa, job, storage, k, job.k_token, job.k_dim, count, stage, width)
        _score(isa, FP32, rows, width, q, stage, 4 * width, count, scores, stride, stage)


@jit
def _score(isa, storage, rows, width, q, k, token, count, scores, stride, fetch):
    """All rows by all keys: four, two or one row at a time."""
    steps, step, side = width // lanes(isa), 4 * width, lanes(isa)
    row = 0
    while row + 4 <= rows:
        for j in range(0, count, side // 4):
            a, c = k + j * token, scores + stride * row + 4 * j
            dot_tile(isa, storage, 4, q + step * row, step, a, token, count - j, steps, c, stride, fetch + j * token)
        row += 4
    if row + 2 <= rows:
        for j in range(0, count, side // 2):
            a, c = k + j * token, scores + stride * row + 4 * j
            dot_tile(isa, storage, 2, q + step * row, step, a, token, count - j, steps, c, stride, fetch + j * token)
        row += 2
    if row < rows:
        for j in range(0, count, side):
            a, c = k + j * token, scores + stride * row + 4 * j
            dot_tile(isa, storage, 1, q + step * row, step, a, token, count - j, steps, c, stride, fetch + j * token)


@jit
def add_run(isa, job, storage, rows, width, weights, stride, v, count, o, stage, fetch):
    """o[row] += sum of weights[row, key] V[key]; rows of weights `stride` bytes apart."""
    if is_direct(isa, job, storage, job.v_dim):
        _add(isa, storage, rows, width, weights, stride, v, job.v_token, count, o, fetch)
    else:
        widen_rows(isa, job, storage, v, job.v_token, job.v_dim, count, stage, width)
        _add(isa, FP32, rows, width, weights, stride, stage, 4 * width, count, o, stage)


@jit
def _add(isa, storage, rows, width, weights, stride, v, token, count, o, fetch):
    """All rows by all vectors: four, two or one row at a time, as many vectors as registers allow."""
    side, size = lanes(isa), size_of(storage)
    many = tile_rows(isa) >= 8
    row = 0
    while row < rows:
        a, some = weights + stride * row, 4 if rows - row >= 4 else 2 if rows - row >= 2 else 1
        column = 0
        while column < width:
            left = (width - column) // side
            b, c, f = v + size * column, o + 4 * (width * row + column), fetch + size * column
            if some == 4:
                if many and left >= 4:
                    multiply_tile(isa, storage, 4, 4, a, stride, 4, 4, b, token, count, c, 4 * width, True, f, token)
                    column += 4 * side
                else:
                    multiply_tile(isa, storage, 4, 1, a, stride, 4, 4, b, token, count, c, 4 * width, True, f, token)
                    column += side
            elif some == 2:
                if many and left >= 8:
                    multiply_tile(isa, storage, 2, 8, a, stride, 4, 2, b, token, count, c, 4 * width, True, f, token)
                    column += 8 * side
                else:
                    multiply_tile(isa, storage, 2, 1, a, stride, 4, 2, b, token, count, c, 4 * width, True, f, token)
                    column += side
            elif left >= 8:
                multiply_tile(isa, storage, 1, 8, a, stride, 4, 1, b, token, count, c, 4 * width, True, f, token)
                column += 8 * side
            else:
                multiply_tile(isa, storage, 1, 1, a, stride, 4, 1, b, token, count, c, 4 * width, True, f, token)
                column += side
        row += some
