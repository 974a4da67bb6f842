"""Between the products of the backward pass: scores S and dP to weights P and their gradients dS.

Of fp32 P and dS take the places of S and dP. Of words they become bfloat16 in the first half of those places, where
neighbouring lanes make words for sums over queries; dS goes to a place of its own too, by pairs of keys, for dQ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.isa import lanes, tile_rows, width
from streaming_attention.simd.memory import store_i32
from streaming_attention.simd.operand import are_words, exp2_for, store_operand, words
from streaming_attention.simd.vectors import Vector, fma, keep_between, load, splat, store
from streaming_attention.streaming.backward_rows import DELTA, FACTOR, LOG2_E, LSE, STATE
from streaming_attention.streaming.keys import seen_by

BLOCK = 96
"""Keys that meet a run of queries at a time; a multiple of the rows of every tile."""
STRIPS = 2
"""Strips of a run: with more, dK and dV are read and written less often, but its scores leave the nearest cache."""


class Lanes(NamedTuple):
    """What a vector of queries has in common for all keys: ``P = factor * 2**(scale * S + shift)`` and
    ``dS = scaled * 2**(scale * S + shift) * (dP - delta)``; bits of int32, the keys it sees where some are masked.
    """

    scale: Vector
    shift: Vector
    factor: Vector
    scaled: Vector
    delta: Vector
    first: Vector
    last: Vector


@jit
def weigh_strip(isa, tile, job, strip, row, key, keys, masked, scores, gradients, place):
    """One strip, the one at `place` of its run; `row` is its first query."""
    unit = 4 * width(isa)
    bounds = by_pairs(isa, gradients) + (BLOCK // 2) * STRIPS * unit
    if masked:
        _bound(isa, job, row, bounds)
    for column in range(0, unit, 4 * lanes(isa)):
        lane = _open_lanes(isa, job, job.state + STATE * unit * strip + column, bounds + column)
        if are_words(tile):
            _weigh_words(isa, tile, scores, gradients, place * unit + column, key, keys, lane, masked)
        else:
            _weigh(isa, tile, scores, gradients, place * unit + column, key, keys, lane, masked)


@jit
def _open_lanes(isa, job, state, bounds):
    unit = 4 * width(isa)
    factor, zero = load(isa, state + FACTOR * unit), splat(isa, np.float32(0))
    return Lanes(
        splat(isa, np.float32(job.scale * LOG2_E)),
        zero - load(isa, state + LSE * unit),
        factor,
        factor * splat(isa, np.float32(job.scale)),
        load(isa, state + DELTA * unit),
        load(isa, bounds),
        load(isa, bounds + unit),
    )


@jit
def by_pairs(isa, gradients):
    """Where dS is by pairs of keys."""
    return gradients + (BLOCK + tile_rows(isa)) * STRIPS * 4 * width(isa)


@jit
def _weigh(isa, tile, scores, gradients, at, key, keys, lane, masked):
    """One vector of lanes."""
    stride = STRIPS * 4 * width(isa)
    for j in range(keys):
        place = at + stride * j
        p, ds = _weight(isa, tile, load(isa, scores + place), load(isa, gradients + place), key + j, lane, masked)
        store(p, scores + place)
        store(ds, gradients + place)


@jit
def _weigh_words(isa, tile, scores, gradients, at, key, keys, lane, masked):
    """The same to bfloat16, two keys at a time; a last key alone is paired with zeros."""
    stride = STRIPS * 4 * width(isa)
    pairs = by_pairs(isa, gradients) + at
    zero = splat(isa, np.float32(0))
    for j in range(0, keys, 2):
        place = at + stride * j
        p0, ds0 = _weight(isa, tile, load(isa, scores + place), load(isa, gradients + place), key + j, lane, masked)
        p1, ds1 = zero, zero
        if j + 1 < keys:
            place += stride
            p1, ds1 = _weight(
                isa, tile, load(isa, scores + place), load(isa, gradients + place), key + j + 1, lane, masked
            )
        place = at // 2 + stride * j
        store_operand(tile, p0, scores + place)
        store_operand(tile, ds0, gradients + place)
        store_operand(tile, p1, scores + place + stride)
        store_operand(tile, ds1, gradients + place + stride)
        store(words(tile, ds0, ds1), pairs + stride * (j // 2))


@jit
def _weight(isa, tile, score, gradient, key, lane, masked):
    """P and dS of one key; 0 in lanes that don't see it."""
    weight = exp2_for(tile, fma(score, lane.scale, lane.shift))
    p, ds = weight * lane.factor, weight * lane.scaled * (gradient - lane.delta)
    if masked:
        zero = splat(isa, np.float32(0))
        p, ds = keep_between(p, lane.first, lane.last, key, zero), keep_between(ds, lane.first, lane.last, key, zero)
    return p, ds


@jit
def _bound(isa, job, row, bounds):
    """First and last key that each lane of a strip sees, as int32."""
    unit = 4 * width(isa)
    for lane in range(width(isa)):
        first, last = seen_by(job, job.keys, min(row + lane, job.queries - 1))
        store_i32(first, bounds + 4 * lane)
        store_i32(last, bounds + unit + 4 * lane)


@jit
def score_bytes(width, tile_rows):
    """Memory of a block's scores, their gradients, those by pairs of keys, and the bounds of a strip."""
    return 4 * width * (STRIPS * (2 * (BLOCK + tile_rows) + BLOCK // 2) + 2)
