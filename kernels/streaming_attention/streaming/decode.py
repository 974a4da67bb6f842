"""Decode: few queries against many keys, bound by how fast K and V are read.

The keys are cut into splits of :data:`SPLIT`, a fixed number, so that sums and their bits don't depend on threads. A
task is one split of one K/V head for all query rows that use it: K and V are read once, whatever the group. Heads whose
rows lie side by side in memory (pages, tokens first) are one task together, so that it is read in order. The task that
finishes a head's last split merges them, in order (:mod:`.partials`).

Within a split, keys go by panels: scores of every row (:mod:`.products`), one softmax step per row (:mod:`.logits`),
output of every row. A panel is read by units, runs of 16 keys of a head, whose places are listed before the first
(:mod:`.keys`): pages cost a look-up each and nothing more.

A panel that some row doesn't see whole goes query by query over what each sees, because a weight of 0 would not keep
NaN out of O.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from streaming_attention.simd import jit
from streaming_attention.simd.convert import BF16, FP16, FP32, INT8, size_of
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_f32, load_i64, store_f32
from streaming_attention.simd.vectors import splat, store
from streaming_attention.streaming.job import job_at
from streaming_attention.streaming.keys import RUN, UNIT, keys_of, list_units, seen_by, seen_by_any
from streaming_attention.streaming.logits import LOWEST_MAXIMUM, add_slope, cap, hide, multiply, query_factor, weigh
from streaming_attention.streaming.partials import hand_in, load_element, merge, write_rows
from streaming_attention.streaming.products import add_run, score_run

SPLIT = 1024
"""Keys of a split: 1 MiB of fp32 K and V at head_dim 128, so a partial result of 0.5 KiB a row is nothing beside it."""
PANEL = 512
"""Keys between two softmax steps, and of a burst of reads of K, then of V: 64 cost int8 a tenth, 256 a head of fp32 3%
(Zen 5, one core)."""
AHEAD, AHEAD_NARROW = 1, 4
"""How many units ahead memory is prefetched, for fp32 and for narrower storage: 8 to 16 KiB at head_dim 128. Twice as
far cost fp32 a tenth of its bandwidth, because K and V together leave the L1 cache before they are used; half as far
cost narrow storage up to a twentieth (Zen 5, one core, medians of 7 on a noisy machine)."""
TOGETHER_ROWS = 32
"""Query rows of a task at most, where heads are taken together: their scores of a panel are 64 KiB."""


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
    """One split of one K/V head, or of several, for all their query rows."""
    job = job_at(job_address)
    head, split = task // job.splits * job.together, task % job.splits
    rows = job.queries * (job.heads // job.kv_heads)
    width = -(-job.head_dim // lanes(isa)) * lanes(isa)
    q = scratch
    o = q + 4 * width * rows * job.together
    state = o + 4 * width * rows * job.together
    scores = state + 8 * (rows * job.together + 8)
    stage = scores + 4 * PANEL * rows * job.together
    units = stage + 4 * RUN * width

    for member in range(job.together):
        at = member * rows
        _open_rows(isa, job, head + member, rows, width, q + 4 * width * at, o + 4 * width * at, state + 8 * at)
    keys = keys_of(job, head // job.kv_heads)
    low, high = seen_by_any(job, keys)
    start, stop = max(low, split * SPLIT), min(high, (split + 1) * SPLIT)
    if start < stop:
        for panel in range(start // PANEL * PANEL, stop, PANEL):
            first, last = max(start, panel), min(stop, panel + PANEL)
            count = (-(-last // RUN) - first // RUN) * job.together
            list_units(job, head, keys, first // RUN, count + AHEAD_NARROW, PANEL // RUN, units)
            for unit in range(count):
                _score(isa, storage, job, unit, count, panel, last, rows, width, q, scores, stage, units)
            _weigh(isa, job, head, keys, panel, first, last, rows, width, scores, state, o)
            whole = seen_by(job, keys, 0)[1] >= last and seen_by(job, keys, job.queries - 1)[0] <= first
            for unit in range(count):
                _add(
                    isa,
                    storage,
                    job,
                    keys,
                    unit,
                    count,
                    panel,
                    first,
                    last,
                    whole,
                    rows,
                    width,
                    scores,
                    o,
                    stage,
                    units,
                )

    for member in range(job.together):
        at = member * rows
        _close_rows(isa, job, head + member, split, rows, width, o + 4 * width * at, state + 8 * at)


@jit
def _close_rows(isa, job, head, split, rows, width, o, state):
    """Hand a head's split in; the last one writes the rows."""
    if job.splits > 1:
        if not hand_in(isa, job, head, split, rows, width, o, state):
            return
        merge(isa, job, head, rows, width, o, state)
    write_rows(isa, job, head, rows, width, o, state)


def scratch_bytes(isa, head_dim: int, rows: int, together: int = 1) -> int:
    """Memory that a thread needs: Q, O, state and a panel of scores of each row; a run widened; a panel's units."""
    width = -(-head_dim // isa.lanes) * isa.lanes
    floats = (2 * width + 2 + PANEL) * rows * together + 16 + RUN * width
    return 4 * floats + UNIT * (PANEL // RUN * together + AHEAD_NARROW)


def heads_together(job: dict, threads: int) -> int:
    """K/V heads that a task takes: several where one alone would read memory in small pieces.

    Pages and tokens hold the parts of all heads side by side. There must be tasks enough for the threads; how heads
    are taken together changes no bit.
    """
    kv_heads, rows = job["kv_heads"], job["queries"] * (job["heads"] // job["kv_heads"])
    if not job["table"] and job["k_head"] >= job["k_token"]:
        return 1
    enough = 1 if threads == 1 else 4 * threads
    for together in range(min(kv_heads, TOGETHER_ROWS // max(rows, 1)), 1, -1):
        if kv_heads % together == 0 and job["batch"] * kv_heads // together * job["splits"] >= enough:
            return together
    return 1


@jit
def _open_rows(isa, job, head, rows, width, q, o, state):
    """Rows of Q, scaled and padded with zeros; O and totals zero."""
    group = job.heads // job.kv_heads
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    factor = query_factor(job)
    for row in range(rows):
        query_head = kv_head * group + row % group
        source = job.q + batch * job.q_batch + query_head * job.q_head + (row // group) * job.q_token
        for c in range(job.head_dim):
            store_f32(load_element(job.q_format, source + c * job.q_dim) * factor, q + 4 * (width * row + c))
        for c in range(job.head_dim, width):
            store_f32(np.float32(0), q + 4 * (width * row + c))
        store_f32(LOWEST_MAXIMUM, state + 8 * row)
        store_f32(np.float32(0), state + 8 * row + 4)
    zero = splat(isa, np.float32(0))
    for c in range(0, width * rows, lanes(isa)):
        store(zero, o + 4 * c)


@jit
def _ahead(storage):
    return AHEAD if size_of(storage) == 4 else AHEAD_NARROW


@jit
def _score(isa, storage, job, unit, count, panel, last, rows, width, q, scores, stage, units):
    """scores[row, key - panel] of a unit; at the end the first of V is prefetched, which memory gives next."""
    place, soon = units + UNIT * unit, unit + _ahead(storage)
    fetch = load_i64(units + UNIT * soon) if soon < count else load_i64(units + UNIT * (soon - count) + 8)
    k, run, first_row = load_i64(place), load_i64(place + 24), load_i64(place + 32) * rows
    at, valid = scores + 4 * (PANEL * first_row + RUN * run - panel), min(RUN, last - RUN * run)
    score_run(isa, job, storage, rows, width, q + 4 * width * first_row, k, valid, at, 4 * PANEL, stage, fetch)
    if job.k_scale != 0:
        for row in range(rows):
            multiply(isa, at + 4 * PANEL * row, job.k_scale + load_i64(place + 16), valid)


@jit
def _weigh(isa, job, head, keys, panel, first, last, rows, width, scores, state, o):
    """Scores to weights, row by row."""
    group = job.heads // job.kv_heads
    begin, size = (first - panel) // RUN * RUN, -(-(last - panel) // RUN) * RUN
    for row in range(rows * job.together):
        at, query = scores + 4 * PANEL * row, row % rows // group
        if job.softcap != 0:
            cap(isa, job, at + 4 * begin, size - begin)
        if job.slopes != 0:
            query_head = (head % job.kv_heads + row // rows) * group + row % rows % group
            distance = query + job.offset + keys - job.keys - panel - begin
            add_slope(isa, load_f32(job.slopes + 4 * query_head), distance, at + 4 * begin, size - begin)
        low, high = seen_by(job, keys, query)
        hide(at, low - panel, high - panel, size)
        weigh(isa, at + 4 * begin, size - begin, state + 8 * row, o + 4 * width * row, width)


@jit
def _add(isa, storage, job, keys, unit, count, panel, first, last, whole, rows, width, weights, o, stage, units):
    """O += weights V of a unit: all rows at once where all see the panel whole, else each query with what it sees."""
    place, soon = units + UNIT * unit, unit + _ahead(storage)
    fetch = load_i64(units + UNIT * soon + (8 if soon < count else 0))
    v, run, first_row = load_i64(place + 8), load_i64(place + 24), load_i64(place + 32) * rows
    start, stop = max(first, RUN * run), min(last, RUN * run + RUN)
    a, c = weights + 4 * (PANEL * first_row - panel), o + 4 * width * first_row
    if job.v_scale != 0:
        for row in range(rows):
            at = a + 4 * (PANEL * row + RUN * run)
            multiply(isa, at, job.v_scale + load_i64(place + 16), stop - RUN * run)
    v -= RUN * run * job.v_token
    if whole:
        x = v + start * job.v_token
        add_run(isa, job, storage, rows, width, a + 4 * start, 4 * PANEL, x, stop - start, c, stage, fetch)
        return
    group = job.heads // job.kv_heads
    for query in range(job.queries):
        low, high = seen_by(job, keys, query)
        low, high = max(low, start), min(high, stop)
        if low < high:
            b, d, x = a + 4 * (PANEL * group * query + low), c + 4 * width * group * query, v + low * job.v_token
            add_run(isa, job, storage, group, width, b, 4 * PANEL, x, high - low, d, stage, fetch)
