"""Streaming attention as plain loops: the rung of the ladder to read first.

A tile of query rows passes over the keys block by block and keeps, for every row, the state of an online softmax
(:mod:`streaming_attention.streaming.state`). The scores of one row and one block are all that is ever written down, so
memory is O(queries x head_dim) instead of O(queries x keys).

Arrays here have three axes: heads (the K/V heads of all batches), rows (every query of every query head that shares
the K/V head), head_dim. Grouped-query attention thus needs no copy of K or V, and all rows of a group pass over the
same block while it is in cache. Which keys a row sees is a number, ``seen[row]``: the first that many of them.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from streaming_attention.exponential import exp
from streaming_attention.streaming.schedule import ROWS
from streaming_attention.streaming.state import NO_PEAK, finish_row, reference, scale_row

# Only what is called from outside is cached, the rest goes into it: what Numba takes from its cache isn't inlined and
# may add in another order, so that bits would depend on what was compiled when.
# Sums may be reordered (that makes them vector code), but NaN and infinity keep their meaning.
SUMS = {"reassoc", "contract", "arcp", "nsz"}


@njit(nogil=True, fastmath=SUMS, forceinline=True)
def dot(a, b):
    total = np.float32(0)
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@njit(nogil=True, fastmath=SUMS, forceinline=True)
def add_weighted_rows(weights, rows, out):
    """out += weights @ rows, for (keys,), (keys, head_dim) and (head_dim,).

    Four rows at a time, so that ``out`` is loaded and stored once for four products: measured 1.7 times faster.
    """
    fours = weights.size // 4 * 4
    for j in range(0, fours, 4):
        w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        for c in range(out.size):
            out[c] += w0 * rows[j, c] + w1 * rows[j + 1, c] + w2 * rows[j + 2, c] + w3 * rows[j + 3, c]
    for j in range(fours, weights.size):
        for c in range(out.size):
            out[c] += weights[j] * rows[j, c]


@njit(nogil=True, forceinline=True)
def score(query, keys, scale, scores):
    """Write the row's logits for a block of keys and return the largest; NaN is passed over."""
    peak = NO_PEAK
    for j in range(scores.size):
        scores[j] = scale * dot(query, keys[j])
        peak = max(peak, scores[j])
    return peak


@njit(nogil=True, fastmath=SUMS, forceinline=True)
def exponentiate(scores, origin):
    """Replace logits by exp(logit - origin) and return their sum."""
    total = np.float32(0)
    for j in range(scores.size):
        scores[j] = exp(scores[j] - origin)
        total += scores[j]
    return total


@njit(nogil=True, forceinline=True)
def fold_block(query, keys, values, scale, scores, peak, total, out):
    """Take one block of keys into a row's state; returns the new (peak, total), ``out`` changes in place."""
    new_peak = max(peak, score(query, keys, scale, scores))
    if new_peak > peak:
        shrink = exp(peak - new_peak)
        total *= shrink
        scale_row(out, shrink)
    total += exponentiate(scores, reference(new_peak))
    add_weighted_rows(scores, values, out)
    return new_peak, total


@njit(nogil=True, forceinline=True)
def attend_tile(queries, keys, values, seen, first_key, last_key, scale, block, peaks, totals, outs):
    """States of a tile's rows over the keys from ``first_key`` up to ``last_key``.

    Parameters
    ----------
    queries, outs : (rows, head_dim)
    keys, values : (keys, head_dim)
    seen, peaks, totals : (rows,)
    """
    scores = np.empty(block, queries.dtype)
    peaks[:], totals[:], outs[:] = NO_PEAK, 0, 0
    longest = min(last_key, seen.max())
    for step in range((longest - first_key + block - 1) // block):
        start = first_key + step * block
        for row in range(len(queries)):
            stop = min(start + block, last_key, seen[row])
            if stop > start:
                peaks[row], totals[row] = fold_block(
                    queries[row],
                    keys[start:stop],
                    values[start:stop],
                    scale,
                    scores[: stop - start],
                    peaks[row],
                    totals[row],
                    outs[row],
                )


@njit(cache=True, nogil=True)
def attend_items(worker, workers, order, queries, keys, values, seen, scale, block, split, peaks, totals, outs):
    """One worker's share of the items: every ``workers``-th of them in the given order.

    Item ``(head * tiles + tile) * splits + part`` is one tile of rows of one head on one split of the keys.
    ``peaks, totals`` are (splits, heads, rows), ``outs`` is (splits, heads, rows, head_dim).
    """
    splits, _, rows = peaks.shape
    tiles = (rows + ROWS - 1) // ROWS
    for index in range(worker, order.size, workers):
        place, part = divmod(order[index], splits)
        head, tile = divmod(place, tiles)
        first, last = tile * ROWS, min((tile + 1) * ROWS, rows)
        attend_tile(
            queries[head, first:last],
            keys[head],
            values[head],
            seen[first:last],
            part * split,
            min((part + 1) * split, keys.shape[1]),
            scale,
            block,
            peaks[part, head, first:last],
            totals[part, head, first:last],
            outs[part, head, first:last],
        )


@njit(cache=True, nogil=True, parallel=True)
def attend_items_threaded(workers, order, queries, keys, values, seen, scale, block, split, peaks, totals, outs):
    for worker in prange(workers):
        attend_items(worker, workers, order, queries, keys, values, seen, scale, block, split, peaks, totals, outs)


@njit(cache=True, nogil=True)
def finish_rows(worker, workers, peaks, totals, outs, lse):
    """Divide one worker's share of the rows; ``peaks, totals, lse`` are (rows,), ``outs`` is (rows, head_dim)."""
    for row in range(worker, peaks.size, workers):
        lse[row] = finish_row(peaks[row], totals[row], outs[row])


@njit(cache=True, nogil=True, parallel=True)
def finish_rows_threaded(workers, peaks, totals, outs, lse):
    for worker in prange(workers):
        finish_rows(worker, workers, peaks, totals, outs, lse)
