"""The memory that a rank needs beside Q, K, V and O, by strategy; light to import, since plans ask."""

from __future__ import annotations

from dataclasses import replace

from streaming_attention.distributed.choose import RESULT_EXTRA, STATE_ITEM, resolve
from streaming_attention.distributed.holdings import Heads
from streaming_attention.distributed.pieces import chunk_of
from streaming_attention.dtypes import DTYPES
from streaming_attention.streaming import footprint
from streaming_attention.workload import Workload


def workspace(
    workload: Workload, threads: int, *, ranks: int, strategy: str, overlap: str, isa: str = footprint.BEST, block: int
) -> int:
    """Bytes of the rank that holds most: scratch of its kernels, what travels, and results that wait to be merged.

    What the MPI library keeps for itself is not in it.
    """
    kernels = {"isa": isa, "block": block}
    strategy = resolve(strategy, workload, ranks, threads)
    if strategy == "spread":
        return footprint.workspace(workload, threads, ranks=ranks, **kernels) + _sums(workload)
    local = replace(workload, queries=-(-workload.queries // ranks), keys=-(-workload.keys // ranks))
    buffers, seen = _BUFFERS[strategy](workload, local, ranks, threads)
    return footprint.workspace(seen, threads, **kernels) + buffers


def _ring(workload: Workload, local: Workload, ranks: int, threads: int) -> tuple[int, Workload]:
    """Two blocks of K and V. The kernels see a block."""
    return min(2, ranks - 1) * _kv(local) + _sums(local) + _waiting(local, threads), local


def _allgather(workload: Workload, local: Workload, ranks: int, threads: int) -> tuple[int, Workload]:
    """All of K and V."""
    seen = replace(local, keys=workload.keys)
    return _kv(seen) + _sums(local) + _waiting(seen, threads), seen


def _heads(workload: Workload, local: Workload, ranks: int, threads: int) -> tuple[int, Workload]:
    """Q, K, V and O of the rank's heads over all tokens."""
    shares = [Heads.of_rank(workload, rank, ranks) for rank in range(ranks)]
    heads = max(stop - start for start, stop in (share.queries for share in shares))
    kv_heads = max(stop - start for start, stop in (share.keys for share in shares))
    seen = replace(workload, heads=kv_heads * shares[0].group, kv_heads=kv_heads)
    row = 2 * workload.head_dim * DTYPES[workload.dtype] + RESULT_EXTRA * STATE_ITEM
    return workload.batch * heads * workload.queries * row + _kv(seen), seen


def _pass_q(workload: Workload, local: Workload, ranks: int, threads: int) -> tuple[int, Workload]:
    """Two buffers of queries, three of results."""
    rows = local.batch * local.heads * local.queries
    queries = min(2, ranks - 1) * local.head_dim * DTYPES[local.dtype]
    return rows * (queries + 3 * (local.head_dim + RESULT_EXTRA) * STATE_ITEM) + _sums(local), local


_BUFFERS = {"ring": _ring, "zigzag": _ring, "allgather": _allgather, "heads": _heads, "pass_q": _pass_q}
"""Strategy -> bytes of its buffers, and the problem that its kernels see."""


def _kv(workload: Workload) -> int:
    """K and V, as they are stored."""
    return 2 * workload.batch * workload.kv_heads * workload.keys * workload.head_dim * DTYPES[workload.dtype]


def _sums(workload: Workload) -> int:
    """The fp32 numbers that an O of 16 bits is rounded from."""
    rows = workload.batch * workload.heads * workload.queries
    return 0 if DTYPES[workload.dtype] == STATE_ITEM else rows * workload.head_dim * STATE_ITEM


def _waiting(workload: Workload, threads: int) -> int:
    """The results of a chunk before it is merged."""
    shape = workload.batch, workload.heads, workload.queries, workload.head_dim
    chunk = chunk_of(shape, workload.kv_heads, workload.keys, threads)
    return workload.batch * workload.heads * chunk.rows * (workload.head_dim + RESULT_EXTRA) * STATE_ITEM
