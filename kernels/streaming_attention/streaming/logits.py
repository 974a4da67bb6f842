"""One row's scores of one panel of keys in decode: options on the logits, the mask, the online softmax.

Scores are logits times log2(e), so that exp2 gives the weights. Options come in flash-attention's order: scale (it is
in Q already), softcap, ALiBi, mask.
"""

from __future__ import annotations

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_f32, store_f32
from streaming_attention.simd.tanh import tanh
from streaming_attention.simd.vectors import (
    absolute,
    first_lane,
    fma,
    lane_max,
    lane_numbers,
    lane_sum,
    load,
    maximum,
    splat,
    store,
)

LOG2_E = np.float32(1.4426950408889634)
LOWEST_MAXIMUM = np.float32(-1e38)
"""Where running maxima start: finite, so that -inf - maximum is -inf and never NaN."""


@jit
def query_factor(job):
    """What Q is multiplied with: scores then are logits times log2(e), or with a softcap the argument of its tanh."""
    if job.softcap == 0:
        return np.float32(job.scale)
    return np.float32(job.scale / (LOG2_E * job.softcap))


@jit
def multiply(isa, values, factors, count):
    """values *= factors, reading no factor beyond `count`."""
    whole = count - count % lanes(isa)
    for j in range(0, whole, lanes(isa)):
        store(load(isa, values + 4 * j) * load(isa, factors + 4 * j), values + 4 * j)
    for j in range(whole, count):
        store_f32(load_f32(values + 4 * j) * load_f32(factors + 4 * j), values + 4 * j)


@jit
def cap(isa, job, scores, size):
    """softcap * tanh of scores that :func:`query_factor` has divided by softcap."""
    factor = splat(isa, np.float32(job.softcap) * LOG2_E)
    for j in range(0, size, lanes(isa)):
        store(tanh(load(isa, scores + 4 * j)) * factor, scores + 4 * j)


@jit
def add_slope(isa, slope, distance, scores, size):
    """ALiBi: ``-slope * |distance|``, where `distance` is from the first score's key to the query."""
    factor = splat(isa, -slope * LOG2_E)
    numbers = lane_numbers(isa)
    for j in range(0, size, lanes(isa)):
        away = absolute(numbers + splat(isa, np.float32(j - distance)))
        store(fma(away, factor, load(isa, scores + 4 * j)), scores + 4 * j)


@jit
def hide(scores, first, stop, size):
    """-inf before `first` and from `stop` on."""
    for j in range(min(first, size)):
        store_f32(np.float32(-np.inf), scores + 4 * j)
    for j in range(size - max(stop, 0)):
        store_f32(np.float32(-np.inf), scores + 4 * (max(stop, 0) + j))


@jit
def weigh(isa, scores, size, state, o, width):
    """Scores to weights against the running maximum, which may rise: then O and the total are rescaled."""
    side = lanes(isa)
    largest = load(isa, scores)
    for j in range(side, size, side):
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
    for j in range(0, size, side):
        weight = exp2(load(isa, scores + 4 * j) - peak)
        total = total + weight
        store(weight, scores + 4 * j)
    store_f32(load_f32(state + 4) + lane_sum(total), state + 4)
