"""The two products of decode for some keys whose rows are evenly spaced: scores = Q K^T and O += weights V.

Lanes run along head_dim. fp32 and narrower formats are widened as they are read. While rows are worked on, as many
others are prefetched, in the order of their addresses.
"""

from __future__ import annotations

from streaming_attention.simd import jit
from streaming_attention.simd.convert import size_of
from streaming_attention.simd.dot import dot_tile
from streaming_attention.simd.isa import lanes, tile_rows
from streaming_attention.simd.known import Known, value_of
from streaming_attention.simd.tile import multiply_tile

ALL = 64
"""More keys than any tile of scores takes."""
ONE, TWO, FOUR, EIGHT = Known(1), Known(2), Known(4), Known(8)


@jit
def score_rows(isa, storage, dims, rows, q, k, token, count, scores, stride, fetch):
    """scores[row, key] of `count` keys, rows `stride` bytes apart: four, two or one row at a time.

    A tile that keys don't fill is written whole.
    """
    step = 4 * value_of(dims)
    row = 0
    while row + 4 <= rows:
        _score(isa, storage, FOUR, dims, q + step * row, k, token, count, scores + stride * row, stride, fetch)
        row += 4
    if row + 2 <= rows:
        _score(isa, storage, TWO, dims, q + step * row, k, token, count, scores + stride * row, stride, fetch)
        row += 2
    if row < rows:
        _score(isa, storage, ONE, dims, q + step * row, k, token, count, scores + stride * row, stride, fetch)


@jit
def _score(isa, storage, rows, dims, q, k, token, count, scores, stride, fetch):
    step, keys = 4 * value_of(dims), lanes(isa) // value_of(rows)
    whole = count - count % keys
    for j in range(0, whole, keys):
        b, f = k + j * token, fetch + j * token
        dot_tile(isa, storage, rows, q, step, b, token, ALL, dims, scores + 4 * j, stride, f)
    if whole < count:
        b, f = k + whole * token, fetch + whole * token
        dot_tile(isa, storage, rows, q, step, b, token, count - whole, dims, scores + 4 * whole, stride, f)


@jit
def add_rows(isa, storage, dims, rows, weights, stride, v, token, count, o, fetch):
    """o[row] += sum of weights[row, key] V[key]; rows of weights `stride` bytes apart.

    Four, two or one row at a time, as many vectors as registers allow.
    """
    step = 4 * value_of(dims)
    row = 0
    while row + 4 <= rows:
        _add(isa, storage, FOUR, FOUR, dims, weights + stride * row, stride, v, token, count, o + step * row, fetch)
        row += 4
    if row + 2 <= rows:
        _add(isa, storage, TWO, EIGHT, dims, weights + stride * row, stride, v, token, count, o + step * row, fetch)
        row += 2
    if row < rows:
        _add(isa, storage, ONE, EIGHT, dims, weights + stride * row, stride, v, token, count, o + step * row, fetch)


@jit
def _add(isa, storage, rows, vectors, dims, weights, stride, v, token, count, o, fetch):
    width, side, size, valid = value_of(dims), lanes(isa), size_of(storage), value_of(rows)
    many = value_of(vectors) if tile_rows(isa) >= 8 else 1
    column = 0
    while column < width:
        b, c, f = v + size * column, o + 4 * column, fetch + size * column
        if many > 1 and width - column >= many * side:
            multiply_tile(
                isa, storage, rows, vectors, weights, stride, 4, valid, b, token, count, c, 4 * width, True, f, token
            )
            column += many * side
        else:
            multiply_tile(
                isa, storage, rows, ONE, weights, stride, 4, valid, b, token, count, c, 4 * width, True, f, token
            )
            column += side
