"""Attention as two matrix products: what one writes with a BLAS at hand.

For every K/V head, the queries of all heads that share it are the rows of one product with K, so K and V are never
copied for a group. The scores stand in memory whole; a softmax over their rows, threaded like the products, lies
between. Causal attention computes all scores and drops those that are not seen, as BLAS has no triangular shape for it.

The bits may depend on the number of threads: the BLAS decides in which order it sums. A NaN or infinity in V reaches
also the causal rows that don't see its key, since their weight of 0 times NaN is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit, prange
from threadpoolctl import ThreadpoolController

from streaming_attention.exponential import exp
from streaming_attention.inputs import Inputs
from streaming_attention.parallel import LOCK, check_threads, share_out
from streaming_attention.prepared import COMPUTE, Prepared

SUMS = {"reassoc", "contract", "nsz"}


def prepare(inputs: Inputs, threads: int, comm: None, options: Mapping) -> Prepared:
    """Materialised attention on one rank; it has no options."""
    check_threads(threads)
    workload, scale = inputs.workload, np.float32(inputs.scale)
    heads, rows = workload.batch * workload.kv_heads, workload.heads // workload.kv_heads * workload.queries
    q = inputs.q.reshape(heads, rows, workload.head_dim)
    k, v = (tensor.reshape(heads, workload.keys, workload.head_dim) for tensor in (inputs.k, inputs.v))
    scores = np.empty((rows, workload.keys), q.dtype)
    out, lse = np.empty_like(q), np.empty((heads, rows), q.dtype)
    first_seen = workload.keys - workload.queries + 1 if workload.causal else workload.keys
    blas = ThreadpoolController()

    def compute():
        with LOCK, blas.limit(limits=threads, user_api="blas"):
            for head in range(heads):
                np.matmul(q[head], k[head].T, out=scores)
                share_out(softmax, softmax_threaded, threads, scores, scale, first_seen, workload.queries, lse[head])
                np.matmul(scores, v[head], out=out[head])

    shape = inputs.q.shape
    return Prepared([(COMPUTE, compute)], out.reshape(shape), "gemm, BLAS", lse.reshape(shape[:3]))


@njit(cache=True, nogil=True)
def softmax(worker, workers, scores, scale, first_seen, queries, lse):
    """Softmax of one worker's rows of scale * scores, in place; what a row doesn't see becomes 0.

    Row r holds query r % queries, which sees the keys before ``first_seen + r % queries``.
    """
    rows, keys = scores.shape
    for row in range(worker, rows, workers):
        seen = min(keys, max(0, first_seen + row % queries))
        lse[row] = softmax_row(scores[row, :seen], scale)
        scores[row, seen:] = 0


@njit(nogil=True, fastmath=SUMS, forceinline=True)
def exponentiate(scores, scale, peak):
    """Replace scores by exp(scale * score - peak); returns their sum."""
    total = np.float32(0)
    for j in range(scores.size):
        scores[j] = exp(scale * scores[j] - peak)
        total += scores[j]
    return total


@njit(nogil=True, forceinline=True)
def softmax_row(scores, scale):
    """Softmax of scale * scores in place; returns log-sum-exp. Where every score is -inf, the weights are 0."""
    peak = np.float32(-np.inf)
    for j in range(scores.size):
        peak = max(peak, scale * scores[j])
    total = exponentiate(scores, scale, np.float32(0) if peak == -np.inf else peak)
    if total == 0:
        return np.float32(-np.inf)
    for j in range(scores.size):
        scores[j] /= total
    return peak + np.log(total)


@njit(cache=True, nogil=True, parallel=True)
def softmax_threaded(workers, scores, scale, first_seen, queries, lse):
    for worker in prange(workers):
        softmax(worker, workers, scores, scale, first_seen, queries, lse)
