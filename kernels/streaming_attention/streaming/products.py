"""The two products of decode for some keys whose rows are evenly spaced: scores = Q K^T and O += weights V.

Lanes run along head_dim. fp32 and narrower formats are widened as they are read. While rows are worked on, as many
others are prefetched, in the order of their addresses.
"""

from __future__ import annotations

from streaming_attention.simd import inline, jit
from streaming_attention.simd.convert import size_of
from streaming_attention.simd.dot import dot_tile
from streaming_attention.simd.isa import lanes, tile_rows
from streaming_attention.simd.known import Known, is_known, value_of
from streaming_attention.simd.tile import multiply_tile

ALL = 64
"""More keys than any tile of scores takes."""
ONE, TWO, FOUR, EIGHT = Known(1), Known(2), Known(4), Known(8)
CHUNK = 8192
"""Bytes of K or V that all tiles take before any goes on, where they are several, so that the others find them in the
L1 cache: 8 rows of Q read fp32 at 0.78 of a plain read, at 0.57 without (Zen 5, head_dim 128)."""


@jit
def score_rows(isa, storage, dims, rows, q, k, token, count, scores, stride, fetch):
    """scores[row, key] of `count` keys, at least one, rows `stride` bytes apart: four, two or one row at a time.

    A tile that keys don't fill is written whole.
    """
    some = count if _is_one_tile(rows) else _chunk(storage, value_of(dims))
    for j in range(0, count, some):
        keys, at = min(some, count - j), scores + 4 * j
        _score_rows(isa, storage, dims, rows, q, k + j * token, token, keys, at, stride, fetch + j * token)


@inline
def _score_rows(isa, storage, dims, rows, q, k, token, count, scores, stride, fetch):
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
    keys = lanes(isa) // value_of(rows)
    whole = count - count % keys if is_known(dims) else 0
    for j in range(0, whole, keys):
        b, f = k + j * token, fetch + j * token
        dot_tile(isa, storage, rows, q, 4 * value_of(dims), b, token, ALL, dims, scores + 4 * j, stride, f)
    if whole < count:
        b, f = k + whole * token, fetch + whole * token
        _score_any(isa, storage, rows, value_of(dims), q, b, token, count - whole, scores + 4 * whole, stride, f)


@jit
def _score_any(isa, storage, rows, dims, q, k, token, count, scores, stride, fetch):
    """Any number of keys and of dims."""
    keys = lanes(isa) // value_of(rows)
    for j in range(0, count, keys):
        b, f = k + j * token, fetch + j * token
        dot_tile(isa, storage, rows, q, 4 * dims, b, token, count - j, dims, scores + 4 * j, stride, f)


@jit
def add_rows(isa, storage, width, rows, weights, stride, v, token, count, o, fetch):
    """o[row] += sum of weights[row, key] V[key] of `count` keys, at least one; rows of weights `stride` bytes apart.

    Four, two or one row at a time, as many vectors as registers allow.
    """
    one = _is_one_tile(rows) and width <= 8 * lanes(isa) and rows * width <= 2 * tile_rows(isa) * lanes(isa)
    some = count if one else _chunk(storage, width)
    for j in range(0, count, some):
        keys, at = min(some, count - j), weights + 4 * j
        _add_rows(isa, storage, width, rows, at, stride, v + j * token, token, keys, o, fetch + j * token)


@jit
def _is_one_tile(rows):
    """Whether a tile takes all rows."""
    return rows <= 2 or rows == 4


@jit
def _chunk(storage, width):
    """Keys of a chunk."""
    return max(16, CHUNK // (width * size_of(storage)) // 16 * 16)


@inline
def _add_rows(isa, storage, width, rows, weights, stride, v, token, count, o, fetch):
    step = 4 * width
    row = 0
    while row + 4 <= rows:
        _add(isa, storage, FOUR, width, weights + stride * row, stride, v, token, count, o + step * row, fetch)
        row += 4
    if row + 2 <= rows:
        _add(isa, storage, TWO, width, weights + stride * row, stride, v, token, count, o + step * row, fetch)
        row += 2
    if row < rows:
        _add(isa, storage, ONE, width, weights + stride * row, stride, v, token, count, o + step * row, fetch)


@jit
def _add(isa, storage, rows, width, weights, stride, v, token, count, o, fetch):
    column = _add_columns(isa, storage, rows, EIGHT, width, 0, weights, stride, v, token, count, o, fetch)
    if column < width:
        column = _add_columns(isa, storage, rows, FOUR, width, column, weights, stride, v, token, count, o, fetch)
        column = _add_columns(isa, storage, rows, TWO, width, column, weights, stride, v, token, count, o, fetch)
        _add_columns(isa, storage, rows, ONE, width, column, weights, stride, v, token, count, o, fetch)


@inline
def _add_columns(isa, storage, rows, vectors, width, column, weights, stride, v, token, count, o, fetch):
    """From `column` on, as far as so many vectors at a time go; the column after them."""
    if value_of(rows) * value_of(vectors) <= 2 * tile_rows(isa):
        size, valid, side = size_of(storage), value_of(rows), lanes(isa) * value_of(vectors)
        while column + side <= width:
            b, c, f = v + size * column, o + 4 * column, fetch + size * column
            multiply_tile(
                isa, storage, rows, vectors, weights, stride, 4, valid, b, token, count, c, 4 * width, True, f, token
            )
            column += side
    return column
