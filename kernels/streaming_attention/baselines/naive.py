"""The textbook: write the scores of a head down, take the softmax of every row, sum the values with those weights.

Three plain loops in three passes over a (queries, keys) matrix, and no liberties with the arithmetic: every sum is
taken in the order it is written. Time O(queries x keys x head_dim), memory O(queries x keys).

Threads share each pass: rows where there are enough, else pieces of a row (of the keys in the first pass, of the
output's columns in the third), so that a single query uses them too. No sum is ever split, so the bits are the same on
any number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit, prange

from streaming_attention.inputs import Inputs
from streaming_attention.parallel import check_threads, share_out
from streaming_attention.prepared import COMPUTE, Prepared

KEY_PIECE = 1024
"""Keys of a piece, where there are fewer rows than threads."""


def prepare(inputs: Inputs, threads: int, comm: None, options: Mapping) -> Prepared:
    """The textbook on one rank; it has no options."""
    check_threads(threads)
    workload, scale = inputs.workload, np.float32(inputs.scale)
    scores = np.empty((workload.queries, workload.keys), inputs.q.dtype)
    out, lse = np.empty_like(inputs.q), np.empty(inputs.q.shape[:3], inputs.q.dtype)
    by_rows = workload.queries >= threads
    pieces = (max(1, workload.keys), workload.head_dim) if by_rows else (KEY_PIECE, -(-workload.head_dim // threads))
    group, causal = workload.heads // workload.kv_heads, workload.causal

    def compute():
        for b, h in np.ndindex(inputs.q.shape[:2]):
            keys, values = inputs.k[b, h // group], inputs.v[b, h // group]
            share_out(score, score_threaded, threads, inputs.q[b, h], keys, scale, causal, pieces[0], scores)
            share_out(softmax, softmax_threaded, threads, scores, causal, lse[b, h])
            share_out(weigh, weigh_threaded, threads, scores, values, workload.causal, pieces[1], out[b, h])

    return Prepared([(COMPUTE, compute)], out, "naive, rows" if by_rows else "naive, pieces of rows", lse)


@njit(nogil=True, forceinline=True)
def seen_keys(row, queries, keys, causal):
    """How many keys a row sees; causal is bottom-right aligned."""
    return min(keys, max(0, row + 1 + keys - queries)) if causal else keys


@njit(cache=True, nogil=True)
def score(worker, workers, q, k, scale, causal, piece, scores):
    """scores = scale * q @ k.T where a row sees the key: one worker's share of the (row, piece of keys) pairs."""
    queries, keys = scores.shape
    pieces = (keys + piece - 1) // piece
    for index in range(worker, queries * pieces, workers):
        row, part = divmod(index, pieces)
        first, last = part * piece, min((part + 1) * piece, seen_keys(row, queries, keys, causal))
        for j in range(first, last):
            total = np.float32(0)
            for c in range(q.shape[1]):
                total += q[row, c] * k[j, c]
            scores[row, j] = scale * total


@njit(cache=True, nogil=True)
def softmax(worker, workers, scores, causal, lse):
    """Softmax of one worker's rows, in place, over the keys that each sees."""
    queries, keys = scores.shape
    for row in range(worker, queries, workers):
        lse[row] = softmax_row(scores[row, : seen_keys(row, queries, keys, causal)])


@njit(cache=True, nogil=True)
def softmax_row(scores):
    """Softmax in place; returns log-sum-exp. Where every score is -inf, the weights are 0."""
    peak = np.float32(-np.inf)
    for j in range(scores.size):
        peak = max(peak, scores[j])
    origin = np.float32(0) if peak == -np.inf else peak
    total = np.float32(0)
    for j in range(scores.size):
        scores[j] = np.exp(scores[j] - origin)
        total += scores[j]
    if total == 0:
        return np.float32(-np.inf)
    for j in range(scores.size):
        scores[j] /= total
    return peak + np.log(total)


@njit(cache=True, nogil=True)
def weigh(worker, workers, weights, v, causal, piece, out):
    """out = weights @ v over the keys that a row sees: one worker's share of the (row, piece of columns) pairs."""
    queries, keys = weights.shape
    head_dim = v.shape[1]
    pieces = (head_dim + piece - 1) // piece
    for index in range(worker, queries * pieces, workers):
        row, part = divmod(index, pieces)
        first, last = part * piece, min((part + 1) * piece, head_dim)
        out[row, first:last] = 0
        for j in range(seen_keys(row, queries, keys, causal)):
            for c in range(first, last):
                out[row, c] += weights[row, j] * v[j, c]


@njit(cache=True, nogil=True, parallel=True)
def score_threaded(workers, q, k, scale, causal, piece, scores):
    for worker in prange(workers):
        score(worker, workers, q, k, scale, causal, piece, scores)


@njit(cache=True, nogil=True, parallel=True)
def softmax_threaded(workers, scores, causal, lse):
    for worker in prange(workers):
        softmax(worker, workers, scores, causal, lse)


@njit(cache=True, nogil=True, parallel=True)
def weigh_threaded(workers, weights, v, causal, piece, out):
    for worker in prange(workers):
        weigh(worker, workers, weights, v, causal, piece, out)
