"""Decode: few queries against many keys, bound by how fast K and V are read.

The keys are cut into splits of :data:`SPLIT`, a fixed number, so that sums and their bits don't depend on threads. A
task is one split of one K/V head for all query rows that use it: K and V are read once, whatever the group. The task
that finishes a head's last split merges them, in order (:mod:`.partials`).

Within a split, keys go by panels: scores of every row, one softmax step per row, output of every row. While a panel is
worked on, the next one is prefetched. fp32 is read in place; other formats, ragged head sizes and odd strides are
widened first, a few keys at a time, into a buffer in the L1 cache (:mod:`.keys`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from streaming_attention.simd import jit
from streaming_attention.simd.convert import BF16, FP16, FP32, INT8, size_of
from streaming_attention.simd.dot import KEYS, dot_tile, sum_lanes
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes, tile_rows
from streaming_attention.simd.memory import load_f32, store_f32
from streaming_attention.simd.tile import multiply_tile
from streaming_attention.simd.vectors import first_lane, lane_max, lane_sum, load, maximum, splat, store
from streaming_attention.streaming.job import job_at
from streaming_attention.streaming.keys import (
    is_direct,
    k_address,
    keys_of,
    seen_by,
    v_address,
    widen_rows,
)
from streaming_attention.streaming.partials import hand_in, merge, write_rows

SPLIT = 1024
"""Keys of a split: 1 MiB of fp32 K and V at head_dim 128, so a partial result of 0.5 KiB a row is nothing beside it."""
PANEL = 64
"""Keys between two softmax steps."""
NEAR, NEAR_NARROW = 16, 64
"""How many keys ahead memory is prefetched, for fp32 and for narrower storage: 8 to 16 KiB at head_dim 128. Twice as
far cost fp32 a tenth of its bandwidth, because K and V together leave the L1 cache before they are used; half as far
cost narrow storage up to a twentieth (Zen 5, one core, medians of 7 on a noisy machine)."""
STEP = 16
"""Keys added to O at a time: the smallest page."""
LOWEST_MAXIMUM = np.float32(-1e38)
"""Where running maxima start: finite, so that -inf - maximum is -inf and never NaN."""
SPARE = 3
"""Rows that a tile may write beyond the last."""


@njit(nogil=True, error_model="numpy", cache=True)
def decode_fp32(isa, job, task, scratch):
    """Kernel for fp32 K and V."""
    _decode(isa, FP32, job, task, scratch)


@njit(nogil=True, error_model="numpy", cache=True)
def decode_bf16(isa, job, task, scratch):
    """Kernel for bfloat16 K and V; arithmetic is fp32, as in all kernels here."""
    _decode(isa, BF16, job, task, scratch)


@njit(nogil=True, error_model="numpy", cache=True)
def decode_fp16(isa, job, task, scratch):
    """Kernel for float16 K and V."""
    _decode(isa, FP16, job, task, scratch)


@njit(nogil=True, error_model="numpy", cache=True)
def decode_int8(isa, job, task, scratch):
    """Kernel for int8 K and V with a factor per token and head."""
    _decode(isa, INT8, job, task, scratch)


@jit
def _decode(isa, storage, job_address, task, scratch):
    """One split of one K/V head, for all its query rows."""
    job = job_at(job_address)
    head, split = task // job.splits, task % job.splits
    rows = job.queries * (job.heads // job.kv_heads)
    width = -(-job.head_dim // lanes(isa)) * lanes(isa)
    q = scratch
    o = q + 4 * width * rows
    state = o + 4 * width * (rows + SPARE)
    scores = state + 8 * (rows + 8)
    stage = scores + 4 * PANEL * rows
    _open_rows(isa, job, head, rows, width, q, o, state)

    keys = keys_of(job, head // job.kv_heads)
    stop = min((split + 1) * SPLIT, keys)
    for first in range(split * SPLIT, stop, PANEL):
        count = min(PANEL, stop - first)
        if _seen_at_all(job, keys, first, first + count):
            _score(isa, storage, job, head, keys, first, count, rows, width, q, scores, stage)
            for row in range(rows):
                at = scores + 4 * PANEL * row
                _weigh(isa, job, head, keys, row, first, count, at, state + 8 * row, o + 4 * width * row, width)
            _accumulate(isa, storage, job, head, keys, first, count, rows, width, scores, o, stage)

    if job.splits > 1 and not hand_in(isa, job, head, split, rows, width, o, state):
        return
    if job.splits > 1:
        merge(isa, job, head, rows, width, o, state)
    write_rows(job, head, rows, width, o, state)


def scratch_bytes(isa, head_dim: int, rows: int) -> int:
    """Memory that a thread needs: Q, O, state and one panel of scores per row; one panel of widened keys."""
    width = -(-head_dim // isa.lanes) * isa.lanes
    return (
        4 * width * (2 * rows + SPARE)
        + 8 * (rows + 8)
        + 4 * PANEL * (rows + width + isa.lanes * rows)
        + 4 * isa.lanes * KEYS
    )


@jit
def _open_rows(isa, job, head, rows, width, q, o, state):
    """Rows of Q, scaled and padded with zeros; O and totals zero."""
    group = job.heads // job.kv_heads
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    scale = np.float32(job.scale)
    for row in range(rows):
        query_head = kv_head * group + row % group
        source = job.q + batch * job.q_batch + query_head * job.q_head + (row // group) * job.q_token
        for c in range(width):
            value = load_f32(source + c * job.q_dim) * scale if c < job.head_dim else np.float32(0)
            store_f32(value, q + 4 * (width * row + c))
        store_f32(LOWEST_MAXIMUM, state + 8 * row)
        store_f32(np.float32(0), state + 8 * row + 4)
    zero = splat(isa, np.float32(0))
    for c in range(0, width * rows, lanes(isa)):
        store(zero, o + 4 * c)


@jit
def _seen_at_all(job, keys, first, stop):
    """Whether any query sees one of the keys first .. stop."""
    low, _ = seen_by(job, keys, 0)
    _, high = seen_by(job, keys, job.queries - 1)
    return low < stop and first < high


@jit
def _score(isa, storage, job, head, keys, first, count, rows, width, q, scores, stage):
    """scores[row, key]: partial sums of a few keys at a time, then their sums a vector of keys at a time."""
    side = lanes(isa)
    sums = stage + 4 * PANEL * width
    direct = is_direct(isa, job, storage, job.k_dim)
    for j in range(0, count, KEYS):
        k, valid = k_address(job, head, first + j), min(KEYS, count - j)
        at = sums + 4 * side * j
        if direct:
            soon = j + (NEAR if size_of(storage) == 4 else NEAR_NARROW)
            key = min(first + soon, keys - 1)
            fetch = k_address(job, head, key) if soon < PANEL else v_address(job, head, max(key - PANEL, 0))
            _dot(isa, storage, rows, width, q, k, job.k_token, valid, at, fetch, job.k_token)
        else:
            widen_rows(isa, job, storage, k, job.k_token, job.k_dim, valid, stage, width)
            _dot(isa, FP32, rows, width, q, stage, 4 * width, valid, at, stage, 4 * width)
    scales = job.k_scale + 4 * (head * job.keys + first)
    for row in range(rows):
        for j in range(0, count, side):
            store(sum_lanes(isa, sums + 4 * side * (PANEL * row + j)), scores + 4 * (PANEL * row + j))
        if job.k_scale != 0:
            _multiply(isa, scores + 4 * PANEL * row, scales, count)


@jit
def _multiply(isa, values, factors, count):
    """values *= factors, reading no factor beyond `count`."""
    whole = count - count % lanes(isa)
    for j in range(0, whole, lanes(isa)):
        store(load(isa, values + 4 * j) * load(isa, factors + 4 * j), values + 4 * j)
    for j in range(whole, count):
        store_f32(load_f32(values + 4 * j) * load_f32(factors + 4 * j), values + 4 * j)


@jit
def _dot(isa, storage, rows, width, q, k, token, valid, sums, fetch, fetch_token):
    """Partial sums of KEYS keys with all rows; prefetches as many rows of V."""
    steps, step, out = width // lanes(isa), 4 * width, 4 * lanes(isa) * PANEL
    row = 0
    while row + 4 <= rows:
        at, to = q + step * row, sums + out * row
        dot_tile(isa, storage, 4, at, step, k, token, valid, steps, to, out, fetch, fetch_token)
        row += 4
    if row + 2 <= rows:
        at, to = q + step * row, sums + out * row
        dot_tile(isa, storage, 2, at, step, k, token, valid, steps, to, out, fetch, fetch_token)
        row += 2
    if row < rows:
        at, to = q + step * row, sums + out * row
        dot_tile(isa, storage, 1, at, step, k, token, valid, steps, to, out, fetch, fetch_token)


@jit
def _weigh(isa, job, head, keys, row, first, count, scores, state, o, width):
    """The online softmax of one row: new maximum, scores to weights, sum; O rescaled if need be."""
    side = lanes(isa)
    low, high = seen_by(job, keys, row // (job.heads // job.kv_heads))
    for j in range(min(low - first, PANEL)):
        store_f32(np.float32(-np.inf), scores + 4 * j)
    for j in range(max(high - first, 0), PANEL):
        store_f32(np.float32(-np.inf), scores + 4 * j)
    largest = load(isa, scores)
    for j in range(side, PANEL, side):
        largest = maximum(load(isa, scores + 4 * j), largest)
    old = load_f32(state)
    new = max(lane_max(largest), old)
    if new > old:
        factor = exp2(splat(isa, old - new))
        for c in range(0, width, side):
            store(load(isa, o + 4 * c) * factor, o + 4 * c)
        store_f32(new, state)
        store_f32(load_f32(state + 4) * first_lane(factor), state + 4)
    total = splat(isa, np.float32(0))
    peak = splat(isa, new)
    for j in range(0, PANEL, side):
        weight = exp2(load(isa, scores + 4 * j) - peak)
        total = total + weight
        store(weight, scores + 4 * j)
    store_f32(load_f32(state + 4) + lane_sum(total), state + 4)
    if job.v_scale != 0:
        _multiply(isa, scores, job.v_scale + 4 * (head * job.keys + first), count)


@jit
def _accumulate(isa, storage, job, head, keys, first, count, rows, width, weights, o, stage):
    """o[row] += sum of weights[row, key] V[key], a few keys at a time."""
    direct = is_direct(isa, job, storage, job.v_dim)
    near = NEAR if size_of(storage) == 4 else NEAR_NARROW
    for j in range(0, count, STEP):
        v, step = v_address(job, head, first + j), min(STEP, count - j)
        if direct:
            key = min(first + j + near, keys - 1)
            fetch = v_address(job, head, key) if j + near < PANEL else k_address(job, head, key)
            _add_rows(isa, storage, rows, width, weights + 4 * j, v, job.v_token, step, o, fetch, job.v_token)
        else:
            widen_rows(isa, job, storage, v, job.v_token, job.v_dim, step, stage, width)
            _add_rows(isa, FP32, rows, width, weights + 4 * j, stage, 4 * width, step, o, stage, 4 * width)


@jit
def _add_rows(isa, storage, rows, width, weights, v, token, run, o, fetch, fetch_token):
    """All rows by all vectors: four, two or one row at a time, as many vectors as registers allow."""
    side = lanes(isa)
    many = tile_rows(isa) >= 8
    row = 0
    while row < rows:
        a, c, valid = weights + 4 * PANEL * row, o + 4 * width * row, rows - row
        column = 0
        while column < width:
            left = (width - column) // side
            b, out, f = v + size_of(storage) * column, c + 4 * column, fetch + size_of(storage) * column
            if valid > 2:
                if many and left >= 4:
                    multiply_tile(
                        isa, storage, 4, 4, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, f, fetch_token
                    )
                    column += 4 * side
                else:
                    multiply_tile(
                        isa, storage, 4, 1, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, f, fetch_token
                    )
                    column += side
            elif valid == 2:
                if many and left >= 8:
                    multiply_tile(
                        isa, storage, 2, 8, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, f, fetch_token
                    )
                    column += 8 * side
                else:
                    multiply_tile(
                        isa, storage, 2, 1, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, f, fetch_token
                    )
                    column += side
            elif left >= 8:
                multiply_tile(
                    isa, storage, 1, 8, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, f, fetch_token
                )
                column += 8 * side
            else:
                multiply_tile(
                    isa, storage, 1, 1, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, f, fetch_token
                )
                column += side
        row += 4 if valid > 2 else valid
