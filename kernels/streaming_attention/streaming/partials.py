"""Results of splits, their merge, and what becomes of them: (maximum, total, unnormalised o) per row.

The merge is associative: ``m = max(m1, m2)``, ``l = l1 2**(m1 - m) + l2 2**(m2 - m)``, ``o`` likewise. Splits are
merged in order of their keys by whoever hands in the last one, so the bits depend on the splits alone. A split that
held nothing for a row has total 0 and is left out.
"""

from __future__ import annotations

import math

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import atomic_add, load_f32, store_f32, store_i64
from streaming_attention.simd.vectors import first_lane, fma, load, splat, store
from streaming_attention.streaming.formats import narrow_row

LOG2_E, LN_2 = math.log2(math.e), math.log(2.0)


@jit
def hand_in(isa, job, head, split, rows, width, o, state):
    """Store a split's result; True for the last one of its head."""
    target = job.partial + 4 * rows * (width + 2) * (head * job.splits + split)
    for c in range(0, rows * width, lanes(isa)):
        store(load(isa, o + 4 * c), target + 4 * c)
    for c in range(2 * rows):
        store_f32(load_f32(state + 4 * c), target + 4 * (rows * width + c))
    if atomic_add(job.counters + 8 * head, 1) < job.splits - 1:
        return False
    store_i64(0, job.counters + 8 * head)  # for the next launch of the same call
    return True


@jit
def merge(isa, job, head, rows, width, o, state):
    """All splits of a head into `o` and `state`."""
    size = 4 * rows * (width + 2)
    source = job.partial + size * head * job.splits
    states = source + 4 * rows * width
    for row in range(rows):
        peak = load_f32(states + 8 * row)
        for split in range(1, job.splits):
            peak = max(peak, load_f32(states + split * size + 8 * row))
        total = np.float32(0)
        for c in range(0, width, lanes(isa)):
            store(splat(isa, total), o + 4 * (width * row + c))
        for split in range(job.splits):
            part = load_f32(states + split * size + 8 * row + 4)
            if part != 0:
                factor = exp2(splat(isa, load_f32(states + split * size + 8 * row) - peak))
                _add_scaled(isa, width, source + split * size + 4 * width * row, factor, o + 4 * width * row)
                total += part * first_lane(factor)
        store_f32(peak, state + 8 * row)
        store_f32(total, state + 8 * row + 4)


@jit
def _add_scaled(isa, width, source, factor, target):
    for c in range(0, width, lanes(isa)):
        store(fma(load(isa, source + 4 * c), factor, load(isa, target + 4 * c)), target + 4 * c)


@jit
def scale_row(isa, width, factor, row):
    for c in range(0, width, lanes(isa)):
        store(load(isa, row + 4 * c) * factor, row + 4 * c)


@jit
def _add_sink(isa, sink, width, o, state):
    """A logit more in the softmax, without a V."""
    peak, total = load_f32(state), load_f32(state + 4)
    new = max(peak, sink)
    factor = exp2(splat(isa, peak - new))
    scale_row(isa, width, factor, o)
    weight = first_lane(exp2(splat(isa, sink - new)))
    store_f32(new, state)
    store_f32(total * first_lane(factor) + weight, state + 4)


@jit
def write_rows(isa, job, head, rows, width, o, state):
    """O / total to where it belongs, and log-sum-exp if wanted. A row that saw no key has 0 and -inf (or its sink)."""
    group = job.heads // job.kv_heads
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    for row in range(rows):
        query, query_head = row // group, kv_head * group + row % group
        if job.sinks != 0:
            sink = load_f32(job.sinks + 4 * query_head) * np.float32(LOG2_E)
            _add_sink(isa, sink, width, o + 4 * width * row, state + 8 * row)
        peak, total = load_f32(state + 8 * row), load_f32(state + 8 * row + 4)
        inverse = np.float32(0) if total == 0 else np.float32(1) / total
        target = job.o + batch * job.o_batch + query_head * job.o_head + query * job.o_token
        scale_row(isa, width, splat(isa, inverse), o + 4 * width * row)
        narrow_row(isa, job.o_format, o + 4 * width * row, job.head_dim, target, job.o_dim)
        if job.lse != 0:
            lse = -np.inf if total == 0 else (peak + math.log2(total)) * LN_2
            store_f32(np.float32(lse), job.lse + 4 * ((batch * job.heads + query_head) * job.queries + query))
