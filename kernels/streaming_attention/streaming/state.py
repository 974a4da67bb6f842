"""The state of an online softmax, and how states are merged.

For one query row and the keys seen so far, with logits s_j and values v_j::

    peak  = max s_j              (m in the papers)
    total = sum exp(s_j - peak)  (l)
    out   = sum exp(s_j - peak) v_j, not yet divided by total  (o)

States of disjoint sets of keys merge into the state of their union, and merging is associative: blocks of keys, splits
over threads and slices over ranks all rest on it. The division happens once, at the end. A state without a key is
(-inf, 0, 0).

Sources: M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018; T. Dao, "FlashAttention-2",
2023, for leaving out undivided.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from streaming_attention.exponential import exp

NO_PEAK = np.float32(-np.inf)


def split(flat: np.ndarray, heads: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views (peaks, totals, outs) of one flat array: (heads, rows), (heads, rows), (heads, rows, head_dim)."""
    count = heads * rows
    peaks, totals, outs = flat[:count], flat[count : 2 * count], flat[2 * count :]
    head_dim = outs.size // count if count else 0
    return peaks.reshape(heads, rows), totals.reshape(heads, rows), outs.reshape(heads, rows, head_dim)


@njit(nogil=True, forceinline=True)
def reference(peak):
    """What logits are taken relative to: the peak, or 0 while it is -inf, since -inf - -inf would be NaN."""
    return np.float32(0) if peak == NO_PEAK else peak


@njit(nogil=True, forceinline=True)
def scale_row(out, factor):
    """Multiply a row by a factor in place."""
    for c in range(out.size):
        out[c] *= factor


@njit(nogil=True, forceinline=True)
def merge_row(peak, total, out, other_peak, other_total, other_out):
    """Merge another state of the same row; returns the new (peak, total), ``out`` changes in place.

    Two empty states give an empty one; a NaN in either stays.
    """
    new_peak = max(peak, other_peak)
    origin = reference(new_peak)
    mine, other = exp(peak - origin), exp(other_peak - origin)
    for c in range(out.size):
        out[c] = out[c] * mine + other_out[c] * other
    return new_peak, total * mine + other_total * other


@njit(nogil=True, forceinline=True)
def finish_row(peak, total, out):
    """Divide by the total, in place, and return log-sum-exp; an empty state gives 0 and -inf."""
    if total == 0:
        out[:] = 0
        return NO_PEAK
    scale_row(out, np.float32(1) / total)
    return peak + np.log(total)


@njit(nogil=True, forceinline=True)
def merge_finished_row(lse, out, other_lse, other_out):
    """Merge another finished row over other keys; returns the new log-sum-exp, ``out`` changes in place.

    A row that saw no key, (-inf, 0), leaves the other as it is; a NaN in either stays.
    """
    if other_lse == NO_PEAK:
        return lse
    peak = max(lse, other_lse)
    mine, other = exp(lse - peak), exp(other_lse - peak)
    total = mine + other
    mine, other = mine / total, other / total
    for c in range(out.size):
        out[c] = out[c] * mine + other_out[c] * other
    return peak + np.log(total)


@njit(cache=True, nogil=True)
def merge_finished(worker, workers, lse, outs, first, other_lse, other_outs):
    """Merge one worker's share of finished rows, (heads, some[, head_dim]), into the rows from `first` on."""
    heads, some = other_lse.shape
    for item in range(heads * some * worker // workers, heads * some * (worker + 1) // workers):
        head, row = item // some, item % some
        lse[head, first + row] = merge_finished_row(
            lse[head, first + row], outs[head, first + row], other_lse[head, row], other_outs[head, row]
        )


@njit(cache=True, nogil=True, parallel=True)
def merge_finished_threaded(workers, lse, outs, first, other_lse, other_outs):
    for worker in prange(workers):
        merge_finished(worker, workers, lse, outs, first, other_lse, other_outs)


@njit(cache=True, nogil=True)
def merge_parts(part_peaks, part_totals, part_outs, peaks, totals, outs):
    """Merge the states of all parts, in order: (parts, heads, rows[, head_dim]) into (heads, rows[, head_dim])."""
    peaks[:], totals[:], outs[:] = NO_PEAK, 0, 0
    for part in range(len(part_peaks)):
        merge_into(peaks, totals, outs, part_peaks[part], part_totals[part], part_outs[part])


@njit(cache=True, nogil=True)
def merge_into(peaks, totals, outs, other_peaks, other_totals, other_outs):
    """Merge states into others row by row, (heads, rows) and (heads, rows, head_dim)."""
    heads, rows = peaks.shape
    for head in range(heads):
        for row in range(rows):
            peaks[head, row], totals[head, row] = merge_row(
                peaks[head, row],
                totals[head, row],
                outs[head, row],
                other_peaks[head, row],
                other_totals[head, row],
                other_outs[head, row],
            )
