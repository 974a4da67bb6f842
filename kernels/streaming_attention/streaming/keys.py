"""Where the keys of a call are: contiguous or in pages, and which of them a query sees."""

from __future__ import annotations

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.convert import size_of
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_i32, load_i64, store_i64

RUN = 16
"""Keys whose rows are evenly spaced, wherever they lie: the smallest page."""
UNIT = 40
"""Bytes that say where a run of a head is; see :func:`list_units`."""
OF_K, OF_V, OF_SCALE, OF_RUN, OF_HEAD = 0, 8, 16, 24, 32
"""Where they say what."""


@jit
def keys_of(job, batch):
    """Keys of a batch."""
    return job.keys if job.lengths == 0 else load_i32(job.lengths + 4 * batch)


@jit
def seen_by(job, keys, query):
    """First key that a query sees and the one after its last; equal where it sees none."""
    at = query + job.offset + keys - job.keys
    first = min(max(at - job.left, 0), keys)
    return first, max(min(at + job.right + 1, keys), first)


@jit
def seen_by_any(job, keys):
    """First key that any query sees and the one after the last."""
    first, _ = seen_by(job, keys, 0)
    _, stop = seen_by(job, keys, job.queries - 1)
    return first, stop


@jit
def list_units(job, head, keys, first, count, panel, units):
    """The next `count` units, in the order in which they lie in memory: a run of one head after the other.

    A unit takes five int64, :data:`UNIT` bytes: addresses of its rows of K and of V, byte offset of its scale factors,
    number of the run, and of the head among the task's. Runs start with number `first`; the order takes the heads in
    turn for each page (for tokens that hold their heads side by side: for each run) and ends no later than each
    `panel` of runs. What is beyond the last key repeats its run. A page is looked up once for all its units, and a
    kernel that reads ahead finds the next page here.
    """
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    last, size = (keys - 1) // RUN, job.page if job.table != 0 else job.keys
    block, start, listed, run = batch, np.int64(0), np.int64(0), first
    while listed < count:
        run = min(run, last)
        stop = min((run // panel + 1) * panel, last + 1)
        if job.table != 0:
            page = run * RUN // size
            block, start = load_i32(job.table + batch * job.table_stride + 4 * page), page * size
            stop = min(stop, (page + 1) * (size // RUN))
        if job.together > 1 and job.k_head < job.k_token:
            stop = run + 1
        for member in range(job.together):
            for r in range(run, min(stop, run + count - listed)):
                place = r * RUN - start
                at = units + UNIT * listed
                of_head = kv_head + member
                store_i64(job.k + block * job.k_batch + of_head * job.k_head + place * job.k_token, at + OF_K)
                store_i64(job.v + block * job.v_batch + of_head * job.v_head + place * job.v_token, at + OF_V)
                store_i64(4 * ((block * job.kv_heads + of_head) * size + place), at + OF_SCALE)
                store_i64(r, at + OF_RUN)
                store_i64(member, at + OF_HEAD)
                listed += 1
        run = stop


@jit
def evenly_spaced(units, unit, stop, field, step):
    """How many units from `unit` on, before `stop`, are of one head and `step` bytes apart in K or V (`field`)."""
    some = 1
    while unit + some < stop:
        at = units + UNIT * (unit + some)
        if load_i64(at + field) - load_i64(at - UNIT + field) != step:
            break
        if load_i64(at + OF_SCALE) - load_i64(at - UNIT + OF_SCALE) != 4 * RUN:
            break
        if load_i64(at + OF_HEAD) != load_i64(at - UNIT + OF_HEAD):
            break
        some += 1
    return some


@jit
def k_address(job, head, key):
    """Address of a row of K."""
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    if job.table != 0:
        batch, key = load_i32(job.table + batch * job.table_stride + 4 * (key // job.page)), key % job.page
    return job.k + batch * job.k_batch + kv_head * job.k_head + key * job.k_token


@jit
def v_address(job, head, key):
    """Address of a row of V."""
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    if job.table != 0:
        batch, key = load_i32(job.table + batch * job.table_stride + 4 * (key // job.page)), key % job.page
    return job.v + batch * job.v_batch + kv_head * job.v_head + key * job.v_token


@jit
def is_direct(isa, job, storage, dim_stride):
    """Whether rows are whole vectors that can be read in place."""
    return dim_stride == size_of(storage) and job.head_dim % lanes(isa) == 0
