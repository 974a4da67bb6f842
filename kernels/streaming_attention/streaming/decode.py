"""Decode: few queries against many keys, bound by how fast K and V are read.

The keys are cut into splits of :data:`SPLIT`, a fixed number, so that sums and their bits don't depend on threads. A
task is one split of one K/V head for all query rows that use it: K and V are read once, whatever the group. Heads whose
rows lie side by side in memory (pages, tokens first) are one task together, so that it is read in order. The task that
finishes a head's last split merges them, in order (:mod:`.partials`).

Within a split, keys go by panels (:mod:`.panels`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from streaming_attention.simd import inline, jit
from streaming_attention.simd.convert import BF16, FP16, FP32, INT8
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import store_f32
from streaming_attention.simd.vectors import splat, store
from streaming_attention.streaming.formats import widen_row
from streaming_attention.streaming.job import job_at
from streaming_attention.streaming.keys import RUN, UNIT, keys_of, list_units, seen_by_any
from streaming_attention.streaming.logits import LOWEST_MAXIMUM, query_factor
from streaming_attention.streaming.panels import AHEAD, PANEL, Desk, Panel, take_panel
from streaming_attention.streaming.partials import hand_in, merge, scale_row, write_rows

SPLIT = 1024
"""Keys of a split: 1 MiB of fp32 K and V at head_dim 128, so a partial result of 0.5 KiB a row is nothing beside it."""
TOGETHER_ROWS = 32
"""Query rows of a task at most, where heads are taken together: their scores of a panel are 128 KiB."""


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


@inline
def _decode(isa, storage, job_address, task, scratch):
    """One split of one K/V head, or of several, for all their query rows."""
    job = job_at(job_address)
    head, split = task // job.splits * job.together, task % job.splits
    desk = _desk(isa, job, scratch)
    for member in range(job.together):
        _open_rows(isa, job, head + member, member * desk.rows, desk)
    keys = keys_of(job, head // job.kv_heads)
    low, high = seen_by_any(job, keys)
    start, stop = max(low, split * SPLIT), min(high, (split + 1) * SPLIT)
    if start < stop:
        for at in range(start // PANEL * PANEL, stop, PANEL):
            first, last = max(start, at), min(stop, at + PANEL)
            panel = Panel(at, first, last, (-(-last // RUN) - first // RUN) * job.together)
            list_units(job, head, keys, first // RUN, panel.units + AHEAD, PANEL // RUN, desk.units)
            take_panel(isa, storage, job, head, keys, desk, panel)
    for member in range(job.together):
        _close_rows(isa, job, head + member, split, member * desk.rows, desk)


@jit
def _desk(isa, job, scratch):
    rows = job.queries * (job.heads // job.kv_heads)
    width = -(-job.head_dim // lanes(isa)) * lanes(isa)
    o = scratch + 4 * width * rows * job.together
    state = o + 4 * width * rows * job.together
    scores = state + 8 * (rows * job.together + 8)
    stage = scores + 4 * PANEL * rows * job.together
    return Desk(rows, width, scratch, o, state, scores, stage, stage + 4 * RUN * width)


@jit
def _close_rows(isa, job, head, split, at, desk):
    """Hand a head's split in, its rows from `at` on; the last one writes them."""
    o, state = desk.o + 4 * desk.width * at, desk.state + 8 * at
    if job.splits > 1:
        if not hand_in(isa, job, head, split, desk.rows, desk.width, o, state):
            return
        merge(isa, job, head, desk.rows, desk.width, o, state)
    write_rows(isa, job, head, desk.rows, desk.width, o, state)


def scratch_bytes(isa, head_dim: int, rows: int, together: int = 1) -> int:
    """Memory that a thread needs: Q, O, state and a panel of scores of each row; a run widened; a panel's units."""
    width = -(-head_dim // isa.lanes) * isa.lanes
    floats = (2 * width + 2 + PANEL) * rows * together + 16 + RUN * width
    return 4 * floats + UNIT * (PANEL // RUN * together + AHEAD)


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
def _open_rows(isa, job, head, at, desk):
    """Rows of Q of a head, from `at` on, scaled and padded with zeros; O and totals zero."""
    group, width = job.heads // job.kv_heads, desk.width
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    factor = splat(isa, query_factor(job))
    for row in range(desk.rows):
        query_head = kv_head * group + row % group
        source = job.q + batch * job.q_batch + query_head * job.q_head + (row // group) * job.q_token
        target = desk.q + 4 * width * (at + row)
        widen_row(isa, job.q_format, source, job.q_dim, job.head_dim, target, 4 * width)
        scale_row(isa, width, factor, target)
        store_f32(LOWEST_MAXIMUM, desk.state + 8 * (at + row))
        store_f32(np.float32(0), desk.state + 8 * (at + row) + 4)
    zero = splat(isa, np.float32(0))
    for c in range(0, width * desk.rows, lanes(isa)):
        store(zero, desk.o + 4 * (width * at + c))
