"""The two products of decode for some keys whose rows are evenly spaced: scores = Q K^T and O += weights V.

Lanes run along head_dim. fp32 and narrower formats are widened as they are read. While rows are worked on, as many
others are prefetched, in the order of their addresses.
"""

from __future__ import annotations

from streaming_attention.simd import jit
from streaming_attention.simd.convert import size_of
from streaming_attention.simd.dot import dot_tile
from streaming_attention.simd.isa import lanes, tile_rows
from streaming_attention.simd.known import value_of
from streaming_attention.simd.tile import multiply_tile

ALL = 64
"""More keys than any tile of scores takes."""


@jit
def score_rows(isa, storage, dims, rows, q, k, token, count, scores, stride, fetch):
    """scores[row, key] of `count` keys, rows `stride` bytes apart: four, two or one row at a time.

    A tile that keys don't fill is written whole.
    """
    step, side = 4 * value_of(dims), lanes(isa)
    row = 0
    while row + 4 <= rows:
        a, c, whole = q + step * row, scores + stride * row, count - count % (side // 4)
        for j in range(0, whole, side // 4):
            b, f = k + j * token, fetch + j * token
            dot_tile(isa, storage, 4, a, step, b, token, ALL, dims, c + 4 * j, stride, f)
        if whole < count:
            b, f = k + whole * token, fetch + whole * token
            dot_tile(isa, storage, 4, a, step, b, token, count - whole, dims, c + 4 * whole, stride, f)
        row += 4
    if row + 2 <= rows:
        a, c, whole = q + step * row, scores + stride * row, count - count % (side // 2)
        for j in range(0, whole, side // 2):
            b, f = k + j * token, fetch + j * token
            dot_tile(isa, storage, 2, a, step, b, token, ALL, dims, c + 4 * j, stride, f)
        if whole < count:
            b, f = k + whole * token, fetch + whole * token
            dot_tile(isa, storage, 2, a, step, b, token, count - whole, dims, c + 4 * whole, stride, f)
        row += 2
    if row < rows:
        a, c, whole = q + step * row, scores + stride * row, count - count % side
        for j in range(0, whole, side):
            b, f = k + j * token, fetch + j * token
            dot_tile(isa, storage, 1, a, step, b, token, ALL, dims, c + 4 * j, stride, f)
        if whole < count:
            b, f = k + whole * token, fetch + whole * token
            dot_tile(isa, storage, 1, a, step, b, token, count - whole, dims, c + 4 * whole, stride, f)


@jit
def add_rows(isa, storage, dims, rows, weights, stride, v, token, count, o, fetch):
    """o[row] += sum of weights[row, key] V[key]; rows of weights `stride` bytes apart.

    Four, two or one row at a time, as many vectors as registers allow.
    """
    width, side, size = value_of(dims), lanes(isa), size_of(storage)
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
