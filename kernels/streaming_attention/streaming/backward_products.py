"""The five products of the backward pass for some queries and some keys: scores, their gradients, and three sums."""

from __future__ import annotations

from typing import NamedTuple

from streaming_attention.simd import jit
from streaming_attention.simd.convert import size_of
from streaming_attention.simd.isa import lanes, tile_rows, width
from streaming_attention.simd.memory import prefetch
from streaming_attention.simd.operand import are_words, storage_of
from streaming_attention.simd.tile import FULL, multiply_tile
from streaming_attention.simd.vectors import LINE
from streaming_attention.streaming.backward_rows import matrix_row, pair_row, panel_bytes, steps_of, strips_of
from streaming_attention.streaming.backward_seen import add_seen, all_finite
from streaming_attention.streaming.backward_weights import BLOCK, STRIPS, by_pairs, weigh_strip

NOTHING, HERE, AHEAD = 0, 1, 2
"""What the first block of a chunk fetches during its scores: this run's dO and dQ or, where those have just been
prepared, the next run's dO and Q (with 1024 tokens 3 % of the time on Zen 5, 1 % with 4096)."""


class Keys(NamedTuple):
    """Some keys of a task: the first, how many, addresses of their dK, dV and, of words alone, of K by pairs."""

    first: int
    count: int
    dk: int
    dv: int
    pairs: int


class Rows(NamedTuple):
    """Rows in memory: address of the first, bytes to the next, bytes of each."""

    at: int
    token: int
    size: int


@jit
def cut(job, keys, start, stop):
    """The keys from `start`, which is even, to `stop` of these."""
    shift = start * job.columns
    return Keys(keys.first + start, stop - start, keys.dk + 4 * shift, keys.dv + 4 * shift, keys.pairs + 2 * shift)


@jit
def kv_row(job, matrix, batch_stride, head_stride, token_stride, head, key):
    """Address of a row of a matrix of K/V heads; `head` counts over batch and heads."""
    return matrix + head // job.kv_heads * batch_stride + head % job.kv_heads * head_stride + key * token_stride


@jit
def differentiate(isa, tile, job, head, query_head, row, rows, keys, fetches, masked, scores):
    """Add what these queries and keys give to dQ, dK and dV; rows of :data:`HERE` or :data:`AHEAD` are fetched."""
    unit = 4 * width(isa)
    gradients = scores + (BLOCK + tile_rows(isa)) * STRIPS * unit
    k = kv_row(job, job.k, job.k_batch, job.k_head, job.k_token, head, keys.first)
    v = kv_row(job, job.v, job.v_batch, job.v_head, job.v_token, head, keys.first)
    q = matrix_row(job, job.q, job.q_batch, job.q_head, job.q_token, query_head, row)
    do = matrix_row(job, job.do, job.do_batch, job.do_head, job.do_token, query_head, row)
    dq = matrix_row(job, job.dq, job.dq_batch, job.dq_head, job.dq_token, query_head, row)
    some, others = _fetched(isa, tile, job, query_head, row, q, do, dq, fetches)
    strip = query_head * strips_of(job.queries, width(isa)) + row // width(isa)
    for s in range(strips_of(rows, width(isa))):
        panel, lane = job.panels + 2 * panel_bytes(isa, tile, job) * (strip + s), s * width(isa)
        _scores(isa, tile, job, k, job.k_token, keys.count, panel, scores + s * unit, some, lane, fetches)
        panel += panel_bytes(isa, tile, job)
        _scores(isa, tile, job, v, job.v_token, keys.count, panel, gradients + s * unit, others, lane, fetches)
        weigh_strip(isa, tile, job, strip + s, row + lane, keys.first, keys.count, masked, scores, gradients, s)
    if masked and not all_finite(isa, tile, job, k, keys.count, q, do, rows):
        add_seen(isa, tile, job, row, rows, keys, scores, gradients, k, q, do, dq)
    else:
        _add(isa, tile, job, query_head, row, rows, keys, scores, gradients, k, q, do, dq)


@jit
def _fetched(isa, tile, job, query_head, row, q, do, dq, fetches):
    """The rows to fetch during S and during dP."""
    size = size_of(storage_of(tile)) * job.columns
    if fetches == AHEAD:
        before = STRIPS * width(isa)
        some = Rows(do - before * job.do_token, job.do_token, size)
        return some, Rows(q - before * job.q_token, job.q_token, size)
    some = Rows(do, job.do_token, size)
    if are_words(tile):
        some = Rows(pair_row(isa, job, job.do_pairs, query_head, row), size, size)
    return some, Rows(dq, job.dq_token, 4 * job.columns)


@jit
def _scores(isa, tile, job, rows, token, keys, panel, target, ahead, lane, fetches):
    """target[key, lane] = rows[key] . panel[:, lane], a tile at a time, while a strip of rows is fetched."""
    step, unit = tile_rows(isa), 4 * width(isa)
    stride, steps = STRIPS * unit, steps_of(tile, job.head_dim)
    share = -(-width(isa) * step // BLOCK)
    for j in range(0, keys, step):
        if fetches != NOTHING:
            for row in range(lane + j // step * share, lane + (j // step + 1) * share):
                for at in range(0, ahead.size, LINE):
                    prefetch(ahead.at + row * ahead.token + at)
        a, c, valid = rows + j * token, target + j * stride, min(step, keys - j)
        multiply_tile(isa, tile, FULL, 3, a, token, 4, valid, panel, unit, steps, c, stride, False, 0, 0)


@jit
def _add(isa, tile, job, query_head, row, rows, keys, scores, gradients, k, q, do, dq):
    """dV += P^T dO, dK += dS^T Q, dQ += dS K."""
    stride, wide = STRIPS * 4 * width(isa), 4 * job.columns
    if are_words(tile):
        q, do = pair_row(isa, job, job.q_pairs, query_head, row), pair_row(isa, job, job.do_pairs, query_head, row)
        steps = -(-rows // 2)
        _multiply(isa, tile, scores, stride, 4, keys.count, do, wide, steps, keys.dv, wide, job.columns)
        _multiply(isa, tile, gradients, stride, 4, keys.count, q, wide, steps, keys.dk, wide, job.columns)
        a, b, token, steps = by_pairs(isa, gradients), keys.pairs, wide, -(-keys.count // 2)
    else:
        _multiply(isa, tile, scores, stride, 4, keys.count, do, job.do_token, rows, keys.dv, wide, job.columns)
        _multiply(isa, tile, gradients, stride, 4, keys.count, q, job.q_token, rows, keys.dk, wide, job.columns)
        a, b, token, steps = gradients, k, job.k_token, keys.count
    # A constant 4 here makes LLVM load neighbouring scalars as a vector and spread them by shuffles whose constants
    # spill the accumulators: half the speed (Zen 5, tiles of 8 x 3).
    _multiply(isa, tile, a, job.lane, stride, rows, b, token, steps, dq, job.dq_token, job.columns)


@jit
def _multiply(isa, tile, a, row_stride, k_stride, rows, b, b_stride, steps, c, c_stride, columns):
    """c[row, :] += a[row, :] @ b, tiles as near to three vectors wide as `columns` allows."""
    step, side = tile_rows(isa), 4 * lanes(isa)
    vectors = columns // lanes(isa)
    parts = -(-vectors // 3)
    at = 0
    for part in range(parts):
        count = vectors // parts + (1 if part < vectors % parts else 0)
        for r in range(0, rows, step):
            x, y, z, valid = a + r * row_stride, b + at, c + r * c_stride + at, min(step, rows - r)
            if count == 3:
                multiply_tile(
                    isa, tile, FULL, 3, x, row_stride, k_stride, valid, y, b_stride, steps, z, c_stride, True, 0, 0
                )
            elif count == 2:
                multiply_tile(
                    isa, tile, FULL, 2, x, row_stride, k_stride, valid, y, b_stride, steps, z, c_stride, True, 0, 0
                )
            else:
                multiply_tile(
                    isa, tile, FULL, 1, x, row_stride, k_stride, valid, y, b_stride, steps, z, c_stride, True, 0, 0
                )
        at += count * side
