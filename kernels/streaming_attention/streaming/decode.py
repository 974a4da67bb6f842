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
from streaming_attention.simd.dot import dot_rows
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_f32, store_f32
from streaming_attention.simd.tile import multiply_tile
from streaming_attention.simd.vectors import first_lane, lane_max, lane_sum, load, maximum, splat, store
from streaming_attention.streaming.job import job_at
from streaming_attention.streaming.keys import (
    is_direct,
    k_address,
    keys_of,
    run_length,
    seen_by,
    v_address,
    widen_rows,
)
from streaming_attention.streaming.partials import hand_in, merge, write_rows

SPLIT = 1024
"""Keys of a split: 1 MiB of fp32 K and V at head_dim 128, so a partial result of 0.5 KiB a row is nothing beside it."""
PANEL = 64
"""Keys between two softmax steps, and how far ahead memory is prefetched."""
LOWEST_MAXIMUM = np.float32(-1e38)
"""Where running maxima start: finite, so that -inf - maximum is -inf and never NaN."""
SPARE = 3
"""Rows that a tile may write beyond the last."""


@njit(nogil=True, error_model="numpy", cache=True)
def decode_task(isa, job_address, task, scratch):
    """Kernel: one split of one K/V head, for all its query rows."""
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
        ahead = PANEL if first + 2 * PANEL <= keys else 0
        if _seen_at_all(job, keys, first, first + count):
            _score(isa, job, head, first, count, ahead, rows, width, q, scores, stage)
            for row in range(rows):
                at = scores + 4 * PANEL * row
                _weigh(isa, job, keys, row, first, at, state + 8 * row, o + 4 * width * row, width)
            _accumulate(isa, job, head, first, count, ahead, rows, width, scores, o, stage)

    if job.splits > 1 and not hand_in(isa, job, head, split, rows, width, o, state):
        return
    if job.splits > 1:
        merge(isa, job, head, rows, width, o, state)
    write_rows(job, head, rows, width, o, state)


def scratch_bytes(isa, head_dim: int, rows: int) -> int:
    """Memory that a thread needs: Q, O, state and one panel of scores per row; one panel of widened keys."""
    width = -(-head_dim // isa.lanes) * isa.lanes
    return 4 * width * (2 * rows + SPARE) + 8 * (rows + 8) + 4 * PANEL * rows + 4 * PANEL * width


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
def _score(isa, job, head, first, count, ahead, rows, width, q, scores, stage):
    """scores[row, key], a vector of keys at a time. The first row's pass prefetches."""
    side = lanes(isa)
    direct = is_direct(isa, job, job.k_dim)
    for j in range(0, count, side):
        key = first + j
        valid = min(side, count - j)
        k, token = k_address(job, head, key), job.k_token
        distance = k_address(job, head, key + ahead) - k
        if not direct:
            scales = 0 if job.k_scale == 0 else job.k_scale + 4 * (head * job.keys + key)
            widen_rows(isa, job, k, token, job.k_dim, distance, valid, stage, width, scales)
            k, token = stage, 4 * width
        steps = width // side
        for row in range(rows):
            at, out = q + 4 * width * row, scores + 4 * (PANEL * row + j)
            if direct and row == 0:
                store(dot_rows(isa, at, k, token, valid, steps, distance), out)
            else:
                store(dot_rows(isa, at, k, token, valid, steps, 0), out)


@jit
def _weigh(isa, job, keys, row, first, scores, state, o, width):
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


@jit
def _accumulate(isa, job, head, first, count, ahead, rows, width, weights, o, stage):
    """o[row] += sum of weights[row, key] V[key], over runs of keys that lie evenly. The first rows' pass prefetches."""
    direct = is_direct(isa, job, job.v_dim)
    j = 0
    while j < count:
        key = first + j
        run = run_length(job, key, count - j)
        v, token = v_address(job, head, key), job.v_token
        distance = v_address(job, head, key + ahead) - v
        if not direct:
            scales = 0 if job.v_scale == 0 else job.v_scale + 4 * (head * job.keys + key)
            widen_rows(isa, job, v, token, job.v_dim, distance, run, stage, width, scales)
            v, token = stage, 4 * width
        _add_rows(isa, rows, width, weights + 4 * j, v, token, run, o, distance if direct else 0)
        j += run


@jit
def _add_rows(isa, rows, width, weights, v, token, run, o, distance):
    """All rows by all vectors: four, two or one row at a time, as many vectors as registers allow."""
    side = lanes(isa)
    row = 0
    while row < rows:
        a, c, valid = weights + 4 * PANEL * row, o + 4 * width * row, rows - row
        column = 0
        while column < width:
            left = (width - column) // side
            b, out = v + 4 * column, c + 4 * column
            if valid > 2:
                if left >= 4:
                    multiply_tile(isa, 4, 4, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, distance)
                    column += 4 * side
                else:
                    multiply_tile(isa, 4, 1, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, distance)
                    column += side
            elif valid == 2:
                if left >= 4:
                    multiply_tile(isa, 2, 4, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, distance)
                    column += 4 * side
                else:
                    multiply_tile(isa, 2, 1, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, distance)
                    column += side
            elif left >= 8:
                multiply_tile(isa, 1, 8, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, distance)
                column += 8 * side
            else:
                multiply_tile(isa, 1, 1, a, 4 * PANEL, 4, valid, b, token, run, out, 4 * width, True, distance)
                column += side
        row += 4 if valid > 2 else valid
        distance = 0
