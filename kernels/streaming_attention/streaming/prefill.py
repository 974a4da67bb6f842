"""Prefill: many queries against all keys, by strips of query rows.

The rows of a K/V head are its query heads' rows side by side: row r is query ``r // group`` of query head ``r % group``
of the group. So grouped-query attention needs no copy of K or V, and a strip spans few queries: little is computed
above the diagonal. A strip is one register tile wide; its rows are the lanes of every vector.

Per block of keys a strip computes scores (tile), weights (a pass over the scores) and output (tile); :mod:`..simd.tile`
has the shapes. A task is a few strips that share each block of K and V while it is in the cache. Blocks start at
multiples of the block size whatever the task, so the sums and their bits don't depend on how tasks are cut.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from streaming_attention.simd import jit
from streaming_attention.simd.convert import FP32
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes, tile_rows, width
from streaming_attention.simd.memory import load_f32, load_i64, store_f32, store_i32, store_i64
from streaming_attention.simd.tile import FULL, multiply_tile
from streaming_attention.simd.transpose import gather_block, scatter_block
from streaming_attention.simd.vectors import any_greater, fma, keep_between, lane_sum, load, maximum, splat, store
from streaming_attention.streaming.job import job_at

BLOCK = 128
"""Keys of a block unless the caller says otherwise.

A strip's scores are then 24 KiB (AVX-512), and O is read and written once per 128 keys."""

LOWEST_MAXIMUM = np.float32(-1e38)
"""Where running maxima start: finite, so that -inf - maximum is -inf and never NaN."""

# A strip's memory, in units of rows of `width` fp32: Q transposed, O transposed (a tile may write a few rows beyond
# head_dim), then single rows. Addresses of Q's and O's rows, an int64 per lane, take two units each.
MAXIMUM, TOTAL, FIRST, LAST, Q_ROWS, O_ROWS, UNITS = 0, 1, 2, 3, 4, 6, 8


@njit(nogil=True, error_model="numpy", cache=True)
def prefill_task(isa, job_address, task, scratch):
    """Kernel: all keys for one run of rows of one K/V head."""
    job = job_at(job_address)
    group = job.heads // job.kv_heads
    rows = job.queries * group
    rows_per_task = job.strips * width(isa)
    tasks_per_head = -(-rows // rows_per_task)
    head = task // tasks_per_head
    # The last rows first: under a causal mask they see the most keys, and long tasks last leave threads waiting.
    first_row = (tasks_per_head - 1 - task % tasks_per_head) * rows_per_task
    strips = min(job.strips, -(-(rows - first_row) // width(isa)))
    scores = scratch
    bytes_per_strip = strip_bytes(job.head_dim, tile_rows(isa), width(isa))
    base = scratch + (job.block + tile_rows(isa)) * width(isa) * 4

    start, stop = job.keys, 0
    for s in range(strips):
        first, last = _open_strip(isa, job, head, first_row + s * width(isa), base + s * bytes_per_strip)
        start, stop = min(start, first), max(stop, last)
    for block in range(start // job.block * job.block, stop, job.block):
        for s in range(strips):
            _attend(isa, job, head, first_row + s * width(isa), base + s * bytes_per_strip, scores, block)
    for s in range(strips):
        _close_strip(isa, job, head, first_row + s * width(isa), base + s * bytes_per_strip)


@jit
def _attend(isa, job, head, row, strip, scores, block):
    """Add a block of keys to a strip."""
    first, last, full_first, full_last = _seen(isa, job, row)
    first, last = max(first, block), min(last, block + job.block)
    if first >= last:
        return
    kv_batch, kv_head = head // job.kv_heads, head % job.kv_heads
    k = job.k + kv_batch * job.k_batch + kv_head * job.k_head + first * job.k_token
    v = job.v + kv_batch * job.v_batch + kv_head * job.v_head + first * job.v_token
    vectors = _vectors(isa, job, row)
    unit = 4 * width(isa)
    output = strip + (UNITS + job.head_dim) * unit
    keys = last - first
    _scores(isa, job, vectors, k, keys, strip + UNITS * unit, scores)
    masked = first < full_first or last > full_last
    for column in range(vectors):
        at = column * 4 * lanes(isa)
        if masked:
            _mask(isa, scores + at, strip + at, first, keys)
        _weigh(isa, scores + at, keys, strip + at, output + at, job.head_dim)
    hidden = min(keys, last - full_last if first >= full_first else keys)
    if masked and not _all_finite(isa, job, v + (keys - hidden) * job.v_token, hidden):
        _accumulate_seen(isa, job, vectors, v, first, keys, scores, strip)
    else:
        _accumulate(isa, job, vectors, v, keys, scores, output)


@jit
def _scores(isa, job, vectors, k, keys, q, scores):
    """scores[key, lane] = K[key] . Q[lane], a tile of keys at a time."""
    step, unit = tile_rows(isa), 4 * width(isa)
    for j in range(0, keys, step):
        a, c, valid = k + j * job.k_token, scores + j * unit, min(step, keys - j)
        if vectors == 3:
            multiply_tile(
                isa, FP32, FULL, 3, a, job.k_token, job.k_dim, valid, q, unit, job.head_dim, c, unit, False, 0, 0
            )
        elif vectors == 2:
            multiply_tile(
                isa, FP32, FULL, 2, a, job.k_token, job.k_dim, valid, q, unit, job.head_dim, c, unit, False, 0, 0
            )
        else:
            multiply_tile(
                isa, FP32, FULL, 1, a, job.k_token, job.k_dim, valid, q, unit, job.head_dim, c, unit, False, 0, 0
            )


@jit
def _accumulate(isa, job, vectors, v, keys, weights, output):
    """output[dim, lane] += V[:, dim] . weights[:, lane], a tile of dims at a time."""
    step, unit = tile_rows(isa), 4 * width(isa)
    for dim in range(0, job.head_dim, step):
        a, c, valid = v + dim * job.v_dim, output + dim * unit, min(step, job.head_dim - dim)
        if vectors == 3:
            multiply_tile(
                isa, FP32, FULL, 3, a, job.v_dim, job.v_token, valid, weights, unit, keys, c, unit, True, 0, 0
            )
        elif vectors == 2:
            multiply_tile(
                isa, FP32, FULL, 2, a, job.v_dim, job.v_token, valid, weights, unit, keys, c, unit, True, 0, 0
            )
        else:
            multiply_tile(
                isa, FP32, FULL, 1, a, job.v_dim, job.v_token, valid, weights, unit, keys, c, unit, True, 0, 0
            )


@jit
def _all_finite(isa, job, v, keys):
    """Whether these rows of V hold no infinity and no NaN, so that weight 0 hides them."""
    side = lanes(isa)
    bad = splat(isa, np.float32(0))
    zero = bad
    for j in range(keys):
        row = v + j * job.v_token
        if job.v_dim == 4 and job.head_dim >= side:
            for dim in range(0, job.head_dim, side):
                bad = fma(load(isa, row + 4 * min(dim, job.head_dim - side)), zero, bad)
        else:
            for dim in range(job.head_dim):
                bad = fma(splat(isa, load_f32(row + dim * job.v_dim)), zero, bad)
    return lane_sum(bad) == 0


@jit
def _accumulate_seen(isa, job, vectors, v, first, keys, weights, strip):
    """The same as :func:`_accumulate`, key by key, leaving lanes that don't see the key as they are."""
    unit, side = 4 * width(isa), 4 * lanes(isa)
    output = strip + (UNITS + job.head_dim) * unit
    for at in range(0, vectors * side, side):
        start, stop = load(isa, strip + FIRST * unit + at), load(isa, strip + LAST * unit + at)
        for j in range(keys):
            weight = load(isa, weights + j * unit + at)
            for dim in range(job.head_dim):
                before = load(isa, output + dim * unit + at)
                value = splat(isa, load_f32(v + j * job.v_token + dim * job.v_dim))
                after = keep_between(fma(weight, value, before), start, stop, first + j, before)
                store(after, output + dim * unit + at)


@jit
def _mask(isa, scores, strip, first, keys):
    """-inf where a lane doesn't see a key; one vector of lanes."""
    unit = 4 * width(isa)
    start, stop = load(isa, strip + FIRST * unit), load(isa, strip + LAST * unit)
    hidden = splat(isa, np.float32(-np.inf))
    for j in range(keys):
        store(keep_between(load(isa, scores + j * unit), start, stop, first + j, hidden), scores + j * unit)


@jit
def _weigh(isa, scores, keys, strip, output, head_dim):
    """The online softmax of one vector of lanes: new maximum, scores to weights, sum; O rescaled if need be."""
    unit = 4 * width(isa)
    old = load(isa, strip + MAXIMUM * unit)
    new = old
    for j in range(keys):
        new = maximum(load(isa, scores + j * unit), new)
    total = load(isa, strip + TOTAL * unit)
    if any_greater(new, old):
        factor = exp2(old - new)
        total = total * factor
        store(new, strip + MAXIMUM * unit)
        for dim in range(head_dim):
            store(load(isa, output + dim * unit) * factor, output + dim * unit)
    for j in range(keys):
        weight = exp2(load(isa, scores + j * unit) - new)
        total = total + weight
        store(weight, scores + j * unit)
    store(total, strip + TOTAL * unit)


@jit
def _open_strip(isa, job, head, row, strip):
    """Fill a strip's state and its transposed Q; returns the first and the last key that any of its rows sees."""
    group = job.heads // job.kv_heads
    rows = job.queries * group
    unit = 4 * width(isa)
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    spare = strip + (UNITS + 2 * job.head_dim + tile_rows(isa)) * unit
    for lane in range(width(isa)):
        query, member = min(row + lane, rows - 1) // group, min(row + lane, rows - 1) % group
        query_head = kv_head * group + member
        q = job.q + batch * job.q_batch + query_head * job.q_head + query * job.q_token
        o = job.o + batch * job.o_batch + query_head * job.o_head + query * job.o_token
        store_i64(q, strip + Q_ROWS * unit + 8 * lane)
        store_i64(o if row + lane < rows else spare, strip + O_ROWS * unit + 8 * lane)
        first, last = _seen_by(job, query)
        store_i32(first, strip + FIRST * unit + 4 * lane)
        store_i32(last, strip + LAST * unit + 4 * lane)
        store_f32(LOWEST_MAXIMUM, strip + MAXIMUM * unit + 4 * lane)
        store_f32(np.float32(0), strip + TOTAL * unit + 4 * lane)
    _gather_queries(isa, job, strip)
    zero = splat(isa, np.float32(0))
    for at in range(0, job.head_dim * unit, 4 * lanes(isa)):
        store(zero, strip + (UNITS + job.head_dim) * unit + at)
    first, last, _, _ = _seen(isa, job, row)
    return first, last


@jit
def _gather_queries(isa, job, strip):
    """Q transposed, times the scale: squares of lanes x lanes, the last one overlapping; odd shapes by scalars."""
    unit, side = 4 * width(isa), lanes(isa)
    scale, q, table = np.float32(job.scale), strip + UNITS * unit, strip + Q_ROWS * unit
    if job.q_dim == 4 and job.head_dim >= side:
        for column in range(0, width(isa), side):
            for at in range(0, job.head_dim, side):
                dim = min(at, job.head_dim - side)
                gather_block(isa, table + 8 * column, 4 * dim, scale, q + dim * unit + 4 * column, unit)
    else:
        for lane in range(width(isa)):
            source = load_i64(table + 8 * lane)
            for dim in range(job.head_dim):
                store_f32(load_f32(source + dim * job.q_dim) * scale, q + dim * unit + 4 * lane)


@jit
def _close_strip(isa, job, head, row, strip):
    """O / total to where it belongs, and log-sum-exp if wanted. A row that saw no key has 0 and -inf."""
    unit, side = 4 * width(isa), lanes(isa)
    output, table = strip + (UNITS + job.head_dim) * unit, strip + O_ROWS * unit
    rows = job.queries * (job.heads // job.kv_heads)
    if job.lse != 0:
        _store_lse(isa, job, head, row, strip)
    tiny = splat(isa, np.float32(1e-38))
    one = splat(isa, np.float32(1))
    for column in range(_vectors(isa, job, row)):
        at = 4 * side * column
        inverse = one / maximum(tiny, load(isa, strip + TOTAL * unit + at))
        for dim in range(job.head_dim):
            store(load(isa, output + dim * unit + at) * inverse, output + dim * unit + at)
        if job.o_dim == 4 and job.head_dim >= side:
            for start in range(0, job.head_dim, side):
                dim = min(start, job.head_dim - side)
                scatter_block(isa, table + 8 * side * column, 4 * dim, output + dim * unit + at, unit)
        else:
            for lane in range(min(side, rows - row - column * side)):
                target = load_i64(table + 8 * (side * column + lane))
                for dim in range(job.head_dim):
                    store_f32(load_f32(output + dim * unit + at + 4 * lane), target + dim * job.o_dim)


@jit
def _store_lse(isa, job, head, row, strip):
    """lse[batch, query head, query], natural logarithm, contiguous."""
    group = job.heads // job.kv_heads
    unit = 4 * width(isa)
    for lane in range(min(width(isa), job.queries * group - row)):
        query, member = (row + lane) // group, (row + lane) % group
        total = load_f32(strip + TOTAL * unit + 4 * lane)
        value = -np.inf
        if total != 0:
            value = (load_f32(strip + MAXIMUM * unit + 4 * lane) + math.log2(total)) * math.log(2.0)
        query_head = (head // job.kv_heads) * job.heads + (head % job.kv_heads) * group + member
        store_f32(np.float32(value), job.lse + 4 * (query_head * job.queries + query))


@jit
def _seen_by(job, query):
    """First key that a query sees and the one after its last; equal where it sees none."""
    at = query + job.offset
    first = min(max(at - job.left, 0), job.keys)
    return first, max(min(at + job.right + 1, job.keys), first)


@jit
def _seen(isa, job, row):
    """Keys that any row of a strip sees, then keys that all of them see."""
    group = job.heads // job.kv_heads
    last_row = min(row + width(isa), job.queries * group) - 1
    any_first, all_last = _seen_by(job, row // group)
    all_first, any_last = _seen_by(job, last_row // group)
    return any_first, any_last, all_first, all_last


@jit
def _vectors(isa, job, row):
    """Vectors of a strip that have rows in them."""
    rows = job.queries * (job.heads // job.kv_heads)
    return (min(width(isa), rows - row) + lanes(isa) - 1) // lanes(isa)


@jit
def strip_bytes(head_dim, rows, width):
    """Memory of one strip, its last part a spare row of O for lanes that have none."""
    return (UNITS + 2 * head_dim + rows + head_dim // width + 1) * width * 4


def scratch_bytes(isa, head_dim: int, strips: int, block: int = BLOCK) -> int:
    """Memory that a thread needs: one block of scores and the task's strips."""
    return (block + isa.rows) * isa.width * 4 + strips * strip_bytes.py_func(head_dim, isa.rows, isa.width)
