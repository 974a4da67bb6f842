"""Decode: few queries against many keys, bound by how fast K and V are read.

The keys are cut into splits of :data:`SPLIT`, a fixed number, so that sums and their bits don't depend on threads. A
task is one split of one K/V head for all query rows that use it: K and V are read once, whatever the group. The task
that finishes a head's last split merges them, in order (:mod:`.partials`).

Within a split, keys go by panels: scores of every row (:mod:`.products`), one softmax step per row (:mod:`.logits`),
output of every row. A panel's rows are read by runs of 16 keys, whose places are listed before the first
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
from streaming_attention.streaming.keys import ENTRY, RUN, keys_of, list_runs, seen_by, seen_by_any
from streaming_attention.streaming.logits import LOWEST_MAXIMUM, add_slope, cap, hide, multiply, query_factor, weigh
from streaming_attention.streaming.partials import hand_in, load_element, merge, write_rows
from streaming_attention.streaming.products import add_run, score_run

SPLIT = 1024
"""Keys of a split: 1 MiB of fp32 K and V at head_dim 128, so a partial result of 0.5 KiB a row is nothing beside it."""
PANEL = 1024
"""Keys between two softmax steps."""
AHEAD, AHEAD_NARROW = 1, 4
"""How many runs ahead memory is prefetched, for fp32 and for narrower storage: 8 to 16 KiB at head_dim 128. Twice as
far cost fp32 a tenth of its bandwidth, because K and V together leave the L1 cache before they are used; half as far
cost narrow storage up to a twentieth (Zen 5, one core, medians of 7 on a noisy machine)."""
LISTED = SPLIT // RUN + AHEAD_NARROW
"""Runs that a task lists: those of its split and the ones prefetched at its end."""


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
    state = o + 4 * width * rows
    scores = state + 8 * (rows + 8)
    stage = scores + 4 * PANEL * rows
    runs = stage + 4 * RUN * width

    keys = keys_of(job, head // job.kv_heads)
    low, high = seen_by_any(job, keys)
    start, stop = max(low, split * SPLIT), min(high, (split + 1) * SPLIT)
    _open_rows(isa, job, head, rows, width, q, o, state)
    if start < stop:
        base = start // RUN
        list_runs(job, head, keys, RUN * base, -(-stop // RUN) - base + AHEAD_NARROW, runs)
        runs -= ENTRY * base
        for panel in range(start // PANEL * PANEL, stop, PANEL):
            first, last = max(start, panel), min(stop, panel + PANEL)
            _score(isa, storage, job, panel, first, last, rows, width, q, scores, stage, runs)
            _weigh(isa, job, head, keys, panel, first, last, rows, width, scores, state, o, runs)
            _accumulate(isa, storage, job, keys, panel, first, last, rows, width, scores, o, stage, runs)

    if job.splits > 1:
        if not hand_in(isa, job, head, split, rows, width, o, state):
            return
        merge(isa, job, head, rows, width, o, state)
    write_rows(isa, job, head, rows, width, o, state)


def scratch_bytes(isa, head_dim: int, rows: int) -> int:
    """Memory that a thread needs: Q, O, state and one panel of scores per row; a run widened; where runs are."""
    width = -(-head_dim // isa.lanes) * isa.lanes
    floats = 2 * width * rows + 2 * (rows + 8) + PANEL * rows + RUN * width
    return 4 * floats + ENTRY * LISTED


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
def _score(isa, storage, job, panel, first, last, rows, width, q, scores, stage, runs):
    """scores[row, key - panel]; what follows K in memory traffic, V of this panel, is prefetched at the end."""
    begin, end = first // RUN, -(-last // RUN)
    for run in range(begin, end):
        soon = run + _ahead(storage)
        fetch = load_i64(runs + ENTRY * soon) if soon < end else load_i64(runs + ENTRY * (soon - end + begin) + 8)
        at, count = scores + 4 * (RUN * run - panel), min(RUN, last - RUN * run)
        k = load_i64(runs + ENTRY * run)
        score_run(isa, job, storage, rows, width, q, k, count, at, 4 * PANEL, stage, fetch)
        if job.k_scale != 0:
            scales = job.k_scale + load_i64(runs + ENTRY * run + 16)
            for row in range(rows):
                multiply(isa, at + 4 * PANEL * row, scales, count)


@jit
def _weigh(isa, job, head, keys, panel, first, last, rows, width, scores, state, o, runs):
    """Scores to weights, row by row."""
    group = job.heads // job.kv_heads
    begin, size = (first - panel) // RUN * RUN, -(-(last - panel) // RUN) * RUN
    for row in range(rows):
        at = scores + 4 * PANEL * row
        if job.softcap != 0:
            cap(isa, job, at + 4 * begin, size - begin)
        if job.slopes != 0:
            slope = load_f32(job.slopes + 4 * (head % job.kv_heads * group + row % group))
            place = row // group + job.offset + keys - job.keys
            add_slope(isa, slope, place - panel - begin, at + 4 * begin, size - begin)
        low, high = seen_by(job, keys, row // group)
        hide(at, low - panel, high - panel, size)
        weigh(isa, at + 4 * begin, size - begin, state + 8 * row, o + 4 * width * row, width)
        if job.v_scale != 0:
            for run in range((panel + begin) // RUN, (panel + size) // RUN):
                scales = job.v_scale + load_i64(runs + ENTRY * run + 16)
                multiply(isa, at + 4 * (RUN * run - panel), scales, min(RUN, last - RUN * run))


@jit
def _accumulate(isa, storage, job, keys, panel, first, last, rows, width, weights, o, stage, runs):
    """O += weights V: all rows at once where all see the panel whole, else each query with what it sees."""
    _, high = seen_by(job, keys, 0)
    low, _ = seen_by(job, keys, job.queries - 1)
    if low <= first and high >= last:
        _add(isa, storage, job, panel, first, last, rows, width, weights, o, stage, runs)
        return
    group = job.heads // job.kv_heads
    for query in range(job.queries):
        low, high = seen_by(job, keys, query)
        a, c = weights + 4 * PANEL * group * query, o + 4 * width * group * query
        _add(isa, storage, job, panel, max(low, first), min(high, last), group, width, a, c, stage, runs)


@jit
def _add(isa, storage, job, panel, first, last, rows, width, weights, o, stage, runs):
    """O += weights V of the keys first .. last; K of the next panel is prefetched at the end."""
    end = -(-last // RUN)
    for run in range(first // RUN, end):
        soon = run + _ahead(storage)
        fetch = load_i64(runs + ENTRY * soon + (8 if soon < end else 0))
        key = max(first, RUN * run)
        count = min(RUN * run + RUN, last) - key
        v, a = load_i64(runs + ENTRY * run + 8) + (key - RUN * run) * job.v_token, weights + 4 * (key - panel)
        add_run(isa, job, storage, rows, width, a, 4 * PANEL, v, count, o, stage, fetch)
