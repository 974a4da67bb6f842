"""From scores to weights, one vector of lanes at a time: score options, masks, the online softmax.

Scores come as plain q . k, a key a row, a query a lane. All exponentials are powers of 2, so maxima are kept in units
of log2. Sums are taken in :data:`STEP` partial sums by the key's place in its block: they don't depend on where a
strip starts to look.
"""

from __future__ import annotations

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import width
from streaming_attention.simd.operand import are_words, exp2_for, words
from streaming_attention.simd.tanh import tanh
from streaming_attention.simd.vectors import (
    any_greater,
    distance,
    fma,
    keep_between,
    load,
    maximum,
    raised,
    splat,
    store,
)
from streaming_attention.streaming.strip import FIRST, LAST, LOG2E, MAXIMUM, PEAK, POSITION, SLOPE, TOTAL

SLACK = np.float32(8)
"""How far, in units of log2, a block's scores may exceed a lane's maximum before that is raised and O rescaled. A
weight is then 256 at most, of the same relative precision; O is rescaled once or twice in a call and not for most
blocks, which gained 1% (Zen 5, standard normal inputs). As in FlashAttention-4."""
STEP = 4
"""Keys that the loops here take at a time; the rows of scores are padded to it."""


@jit
def adjust(isa, job, scores, strip, first, keys):
    """Scale, then softcap and ALiBi where the call has them; scores are then logits in units of log2."""
    unit = 4 * width(isa)
    scale = splat(isa, np.float32(job.scale))
    if job.softcap != 0:
        cap = splat(isa, np.float32(job.softcap * LOG2E))
        scale = splat(isa, np.float32(job.scale / (job.softcap * LOG2E)))
        for j in range(keys):
            store(tanh(load(isa, scores + j * unit) * scale) * cap, scores + j * unit)
    else:
        for j in range(keys):
            store(load(isa, scores + j * unit) * scale, scores + j * unit)
    if job.slopes != 0:
        zero = splat(isa, np.float32(0))
        slope, position = zero - load(isa, strip + SLOPE * unit), load(isa, strip + POSITION * unit)
        for j in range(keys):
            logit = fma(distance(isa, position, first + j), slope, load(isa, scores + j * unit))
            store(logit, scores + j * unit)


@jit
def mask(isa, scores, strip, first, keys):
    """-inf where a lane doesn't see a key."""
    unit = 4 * width(isa)
    start, stop = load(isa, strip + FIRST * unit), load(isa, strip + LAST * unit)
    hidden = splat(isa, np.float32(-np.inf))
    for j in range(keys):
        store(keep_between(load(isa, scores + j * unit), start, stop, first + j, hidden), scores + j * unit)


@jit
def weigh(isa, tile, scores, keys, strip, output, head_dim, scale, changed):
    """New maximum where it rose, scores to weights, sum; O rescaled if need be. Weights of words lie two keys a row.

    `changed` says that scores are not those whose maxima the tiles left.
    """
    unit = 4 * width(isa)
    hidden = splat(isa, np.float32(-np.inf))
    padded = -(-keys // STEP) * STEP
    for j in range(keys, padded):
        store(hidden, scores + j * unit)
    factor = splat(isa, scale)
    old = load(isa, strip + MAXIMUM * unit)
    peak = _largest(isa, scores, padded) if changed else load(isa, strip + PEAK * unit)
    new = raised(old, peak * factor, splat(isa, SLACK))
    if any_greater(new, old):
        _rescale(isa, strip, output, head_dim, exp2(old - new))
        store(new, strip + MAXIMUM * unit)
    least = splat(isa, np.float32(0)) - new
    total = load(isa, strip + TOTAL * unit)
    store(total + _to_weights(isa, tile, scores, padded, factor, least), strip + TOTAL * unit)


@jit
def _largest(isa, scores, keys):
    """Largest score of every lane, NaN passed over."""
    unit = 4 * width(isa)
    m0 = splat(isa, np.float32(-np.inf))
    m1, m2, m3 = m0, m0, m0
    for j in range(0, keys, STEP):
        at = scores + j * unit
        m0, m1 = maximum(load(isa, at), m0), maximum(load(isa, at + unit), m1)
        m2, m3 = maximum(load(isa, at + 2 * unit), m2), maximum(load(isa, at + 3 * unit), m3)
    return maximum(maximum(m0, m1), maximum(m2, m3))


@jit
def _rescale(isa, strip, output, head_dim, factor):
    """O and total to a new maximum."""
    unit = 4 * width(isa)
    store(load(isa, strip + TOTAL * unit) * factor, strip + TOTAL * unit)
    for dim in range(head_dim):
        store(load(isa, output + dim * unit) * factor, output + dim * unit)


@jit
def _to_weights(isa, tile, scores, keys, factor, least):
    """Weights ``2**(factor * score + least)`` in place of scores; returns their sum."""
    unit = 4 * width(isa)
    s0 = splat(isa, np.float32(0))
    s1, s2, s3 = s0, s0, s0
    for j in range(0, keys, STEP):
        at = scores + j * unit
        w0 = exp2_for(tile, fma(load(isa, at), factor, least))
        w1 = exp2_for(tile, fma(load(isa, at + unit), factor, least))
        w2 = exp2_for(tile, fma(load(isa, at + 2 * unit), factor, least))
        w3 = exp2_for(tile, fma(load(isa, at + 3 * unit), factor, least))
        s0, s1, s2, s3 = s0 + w0, s1 + w1, s2 + w2, s3 + w3
        if are_words(tile):
            to = scores + j // 2 * unit
            store(words(tile, w0, w1), to)
            store(words(tile, w2, w3), to + unit)
        else:
            store(w0, at)
            store(w1, at + unit)
            store(w2, at + 2 * unit)
            store(w3, at + 3 * unit)
    return (s0 + s1) + (s2 + s3)
