"""What the backward pass needs of each strip of queries before it meets its first key.

* Q and dO transposed, lanes along queries, so that scores and their gradients come out of the forward's tile. Of
  bfloat16 they are words along head_dim.
* Of bfloat16, Q and dO as words of neighbouring queries too, as the sums of dK and dV over queries take them.
* lse in powers of two with the factor lost in its rounding, and delta = dO . O: the part of the softmax's
  gradient that all keys share.
* dQ set to 0.
"""

from __future__ import annotations

import math

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.isa import lanes, tile_rows, width
from streaming_attention.simd.memory import load_f32, prefetch, store_f32, store_i64
from streaming_attention.simd.operand import are_words, interleave, multiply_add
from streaming_attention.simd.transpose import gather_block
from streaming_attention.simd.vectors import load, splat, store

LOG2_E = math.log2(math.e)

LSE, FACTOR, DELTA, STATE = 0, 1, 2, 3
"""Rows of a strip's state, of `width` fp32 each, and how many there are."""


@jit
def prepare_strip(isa, tile, job, head, row, scratch):
    """The strip of a query head (counted over batch and heads) that begins with query `row`."""
    strip = head * strips_of(job.queries, width(isa)) + row // width(isa)
    rows = min(width(isa), job.queries - row)
    unit = 4 * width(isa)
    table, zeros = scratch, scratch + 8 * width(isa)
    spare = zeros + 4 * job.columns
    _fill(isa, zeros, job.columns)
    panel = job.panels + 2 * panel_bytes(isa, tile, job) * strip
    q = matrix_row(job, job.q, job.q_batch, job.q_head, job.q_token, head, row)
    do = matrix_row(job, job.do, job.do_batch, job.do_head, job.do_token, head, row)
    o = matrix_row(job, job.o, job.o_batch, job.o_head, job.o_token, head, row)
    dq = matrix_row(job, job.dq, job.dq_batch, job.dq_head, job.dq_token, head, row)
    do_panel = panel + panel_bytes(isa, tile, job)
    _transpose(isa, tile, job, q, job.q_token, rows, panel, table, zeros, do, job.do_token)
    _transpose(isa, tile, job, do, job.do_token, rows, do_panel, table, zeros, o, job.o_token)
    _transpose(isa, tile, job, o, job.o_token, rows, spare, table, zeros, dq, job.dq_token)
    if are_words(tile):
        pair_rows(isa, job, q, job.q_token, rows, pair_row(isa, job, job.q_pairs, head, row), zeros)
        pair_rows(isa, job, do, job.do_token, rows, pair_row(isa, job, job.do_pairs, head, row), zeros)
    state = job.state + STATE * unit * strip
    for lane in range(width(isa)):
        lse = load_f32(job.lse + 4 * (head * job.queries + row + lane)) if lane < rows else np.float32(np.inf)
        _set_lse(lse, state + 4 * lane, unit)
    _dot(isa, tile, job, do_panel, spare, state + DELTA * unit)
    for r in range(-(-rows // tile_rows(isa)) * tile_rows(isa)):
        _fill(isa, dq + r * job.dq_token, job.columns)


@jit
def matrix_row(job, matrix, batch_stride, head_stride, token_stride, head, row):
    """Address of a row of a matrix of query heads; `head` counts over batch and heads."""
    return matrix + head // job.heads * batch_stride + head % job.heads * head_stride + row * token_stride


@jit
def strips_of(queries, width):
    """Strips of a query head."""
    return -(-queries // width)


@jit
def steps_of(tile, head_dim):
    """Steps of a sum along head_dim."""
    return (head_dim + 1) // 2 if are_words(tile) else head_dim


@jit
def panel_bytes(isa, tile, job):
    """Size of Q or dO transposed, whole squares of lanes x lanes."""
    return -(-steps_of(tile, job.head_dim) // lanes(isa)) * lanes(isa) * 4 * width(isa)


@jit
def pair_row(isa, job, pairs, head, row):
    """Address of the words of queries `row` and the next."""
    return pairs + 2 * job.columns * (head * strips_of(job.queries, width(isa)) * width(isa) + row)


@jit
def pair_rows(isa, job, source, token, count, target, zeros):
    """Words of neighbouring rows of bfloat16, a word a column; a last row alone is paired with zeros."""
    for row in range(0, count, 2):
        low = source + row * token
        high = low + token if row + 1 < count else zeros
        for c in range(0, job.columns, lanes(isa)):
            interleave(isa, low + 2 * c, high + 2 * c, target + 2 * row * job.columns + 4 * c)


@jit
def _set_lse(lse, state, unit):
    """log-sum-exp in powers of two, and the factor that makes up for its rounding."""
    # A row that saw no key has -inf; with +inf in its place every weight of it is 0 instead of NaN.
    exact = np.inf if lse == -np.inf else np.float64(lse) * LOG2_E
    rounded = np.float32(exact)
    lost = exact - rounded if abs(exact) < np.inf else 0.0
    store_f32(rounded, state + LSE * unit)
    store_f32(np.float32(2.0**-lost), state + FACTOR * unit)


@jit
def _transpose(isa, tile, job, rows, token, count, panel, table, zeros, fetch, fetch_token):
    """panel[dim, lane] = rows[lane, dim], 0 in lanes without a row, while as many rows are fetched; by words if so."""
    side, unit = lanes(isa), 4 * width(isa)
    for lane in range(width(isa)):
        store_i64(rows + lane * token if lane < count else zeros, table + 8 * lane)
    for column in range(0, width(isa), side):
        for dim in range(0, steps_of(tile, job.head_dim), side):
            for row in range(column, min(column + side, count)):
                prefetch(fetch + row * fetch_token + 4 * dim)
            gather_block(isa, table + 8 * column, 4 * dim, panel + dim * unit + 4 * column, unit)


@jit
def _dot(isa, tile, job, a, b, target):
    """target[lane] = a[:, lane] . b[:, lane], added up as a tile does: delta is dP where a row sees one key."""
    unit = 4 * width(isa)
    for at in range(0, unit, 4 * lanes(isa)):
        total = splat(isa, np.float32(0))
        for dim in range(steps_of(tile, job.head_dim)):
            total = multiply_add(tile, load(isa, b + dim * unit + at), load(isa, a + dim * unit + at), total)
        store(total, target + at)


@jit
def _fill(isa, row, columns):
    zero = splat(isa, np.float32(0))
    for c in range(0, columns, lanes(isa)):
        store(zero, row + 4 * c)


def rows_scratch_bytes(isa, columns: int) -> int:
    """Memory that a thread needs: a table of row addresses, a row of zeros, O transposed."""
    return 8 * isa.width + 4 * columns * (1 + isa.width)
