"""Results of splits and their merge: (maximum, total, unnormalised o) per row.

The merge is associative: ``m = max(m1, m2)``, ``l = l1 2**(m1 - m) + l2 2**(m2 - m)``, ``o`` likewise. Splits are
merged in order of their keys by whoever hands in the last one, so the bits depend on the splits alone.
"""

from __future__ import annotations

import math

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import atomic_add, load_f32, store_f32
from streaming_attention.simd.vectors import first_lane, fma, load, splat, store


@jit
def hand_in(isa, job, head, split, rows, width, o, state):
    """Store a split's result; True for the last one of its head."""
    target = job.partial + 4 * rows * (width + 2) * (head * job.splits + split)
    for c in range(0, rows * width, lanes(isa)):
        store(load(isa, o + 4 * c), target + 4 * c)
    for c in range(2 * rows):
        store_f32(load_f32(state + 4 * c), target + 4 * (rows * width + c))
    return atomic_add(job.counters + 8 * head, 1) == job.splits - 1


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
        for split in range(job.splits):
            factor = exp2(splat(isa, load_f32(states + split * size + 8 * row) - peak))
            _add_scaled(isa, width, source + split * size + 4 * width * row, factor, o + 4 * width * row, split > 0)
            total += load_f32(states + split * size + 8 * row + 4) * first_lane(factor)
        store_f32(peak, state + 8 * row)
        store_f32(total, state + 8 * row + 4)


@jit
def _add_scaled(isa, width, source, factor, target, accumulate):
    zero = splat(isa, np.float32(0))
    for c in range(0, width, lanes(isa)):
        before = load(isa, target + 4 * c) if accumulate else zero
        store(fma(load(isa, source + 4 * c), factor, before), target + 4 * c)


@jit
def write_rows(job, head, rows, width, o, state):
    """O / total to where it belongs, and log-sum-exp if wanted. A row that saw no key has 0 and -inf."""
    group = job.heads // job.kv_heads
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    for row in range(rows):
        query, query_head = row // group, kv_head * group + row % group
        peak, total = load_f32(state + 8 * row), load_f32(state + 8 * row + 4)
        inverse = np.float32(0) if total == 0 else np.float32(1) / total
        target = job.o + batch * job.o_batch + query_head * job.o_head + query * job.o_token
        for c in range(job.head_dim):
            store_f32(load_f32(o + 4 * (width * row + c)) * inverse, target + c * job.o_dim)
        if job.lse != 0:
            lse = -np.inf if total == 0 else (peak + math.log2(total)) * math.log(2.0)
            store_f32(np.float32(lse), job.lse + 4 * ((batch * job.heads + query_head) * job.queries + query))
