"""The backward pass where hidden rows hold an infinity or NaN: weight 0 doesn't hide them from a product."""

from __future__ import annotations

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.convert import load_scalar_widened, load_widened, size_of
from streaming_attention.simd.isa import lanes, width
from streaming_attention.simd.memory import load_f32, store_f32
from streaming_attention.simd.operand import storage_of
from streaming_attention.simd.vectors import fma, lane_sum, splat
from streaming_attention.streaming.backward_weights import STRIPS
from streaming_attention.streaming.keys import seen_by


@jit
def all_finite(isa, tile, job, k, keys, q, do, rows):
    """Whether weight 0 hides every one of these rows: 0 times infinity or NaN would not be 0."""
    bad = _times_zero(isa, tile, k, job.k_token, keys, job.columns)
    bad = bad + _times_zero(isa, tile, q, job.q_token, rows, job.columns)
    return lane_sum(bad + _times_zero(isa, tile, do, job.do_token, rows, job.columns)) == 0


@jit
def _times_zero(isa, tile, rows, token, count, columns):
    zero, storage = splat(isa, np.float32(0)), storage_of(tile)
    total = zero
    for row in range(count):
        for c in range(0, columns, lanes(isa)):
            total = fma(load_widened(isa, storage, rows + row * token + size_of(storage) * c), zero, total)
    return total


@jit
def add_seen(isa, tile, job, row, rows, keys, scores, gradients, k, q, do, dq):
    """The three sums over the visible pairs of one strip alone."""
    storage = storage_of(tile)
    stride, size = STRIPS * 4 * width(isa), size_of(storage)
    for lane in range(rows):
        first, last = seen_by(job, job.keys, row + lane)
        for j in range(max(first - keys.first, 0), min(last - keys.first, keys.count)):
            weight = load_scalar_widened(storage, scores + j * stride + size * lane)
            gradient = load_scalar_widened(storage, gradients + j * stride + size * lane)
            for dim in range(job.head_dim):
                sums = 4 * (j * job.columns + dim)
                _add(storage, dq + lane * job.dq_token + 4 * dim, gradient, k + j * job.k_token + size * dim)
                _add(storage, keys.dk + sums, gradient, q + lane * job.q_token + size * dim)
                _add(storage, keys.dv + sums, weight, do + lane * job.do_token + size * dim)


@jit
def _add(storage, target, factor, source):
    store_f32(load_f32(target) + factor * load_scalar_widened(storage, source), target)
