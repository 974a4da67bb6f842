"""What a workload costs: exact FLOPs, the bytes that must move, and how long that takes at least.

Arithmetic on a :class:`~streaming_attention.workload.Workload` and nothing else, so that a plan can use it before any
array exists. Every count is exact and checked against brute force.
"""

from __future__ import annotations

from streaming_attention.dtypes import DTYPES
from streaming_attention.machine.layout import Layout
from streaming_attention.workload import Workload

NOMINAL_GBS = 10.0
"""Memory bandwidth of one thread assumed by a plan before anything is measured, GB/s."""


def visible_pairs(workload: Workload) -> int:
    """Number of (query, key) pairs that count, over all heads and batches.

    Causal is bottom-right aligned: the last n = min(queries, keys) queries see keys - n + 1, ..., keys of them, and
    queries before those see none.
    """
    pairs = workload.queries * workload.keys
    if workload.causal:
        seeing = min(workload.queries, workload.keys)
        pairs = seeing * (workload.keys - seeing) + seeing * (seeing + 1) // 2
    return workload.batch * workload.heads * pairs


def flops(workload: Workload) -> int:
    """Floating-point operations of Q K^T and P V on visible pairs: 4 * head_dim each; softmax is not counted."""
    return 4 * workload.head_dim * visible_pairs(workload)


def tensor_bytes(workload: Workload, ranks: int = 1) -> int:
    """Bytes of Q, K, V and O on the rank that holds most: Q and O whole, K and V as its slice of the keys."""
    rows_q = workload.heads * workload.queries
    rows_kv = workload.kv_heads * -(-workload.keys // ranks)
    return 2 * workload.batch * (rows_q + rows_kv) * workload.head_dim * DTYPES[workload.dtype]


def bytes_moved(workload: Workload) -> int:
    """Bytes that any method must move: Q, K and V read once, O written once."""
    return tensor_bytes(workload)


def scores_bytes(workload: Workload) -> int:
    """Bytes of the whole score matrix, batch x heads x queries x keys, in the workload's precision."""
    return workload.batch * workload.heads * workload.queries * workload.keys * DTYPES[workload.dtype]


def intensity(workload: Workload) -> float:
    """FLOPs per byte that must move: below the machine's balance the workload is memory-bound, above compute-bound."""
    return flops(workload) / bytes_moved(workload)


def predict_seconds(workload: Workload, method, layout: Layout, gbs: float = NOMINAL_GBS) -> float:
    """Seconds of one call, for a plan: the longer of computing and moving, on threads that are never idle.

    Parameters
    ----------
    method : streaming_attention.registry.Method
        Its ``rate`` is what one thread computes, GFLOP/s.
    gbs : float
        What one thread moves, GB/s.
    """
    return max(flops(workload) / method.rate, bytes_moved(workload) / gbs) / layout.workers * 1e-9


def naive_workspace(workload: Workload, threads: int) -> int:
    """Bytes of the score matrix of one head, which the textbook writes out, and of every row's log-sum-exp."""
    return (workload.queries * workload.keys + _rows(workload)) * DTYPES[workload.dtype]


def gemm_workspace(workload: Workload, threads: int) -> int:
    """Bytes of the score matrix of the query heads that share one K/V head, and of every row's log-sum-exp."""
    group = workload.heads // workload.kv_heads
    return (group * workload.queries * workload.keys + _rows(workload)) * DTYPES[workload.dtype]


def _rows(workload: Workload) -> int:
    return workload.batch * workload.heads * workload.queries
