"""What the shipped Triton kernels can take, and the memory they need; light to import, since plans ask."""

from __future__ import annotations

from streaming_attention.streaming.footprint import BEST, rows_per_head
from streaming_attention.triton import specializations as known
from streaming_attention.workload import Workload

SPLIT = 1024
"""Keys of a part of a decode; a constant, so that bits don't depend on threads."""

_PAGE = 4096


def prefill_limits(workload: Workload) -> str | None:
    """None, or why ``triton_streaming`` can't express a workload."""
    largest = known.HEAD_BLOCKS[-1]
    return None if workload.head_dim <= largest else f"Triton kernels go to head_dim {largest}, not {workload.head_dim}"


def decode_limits(workload: Workload) -> str | None:
    """None, or why ``triton_decode`` can't express a workload."""
    rows, most = rows_per_head(workload), known.ROWS[-1]
    if rows > most:
        return f"triton_decode takes {most} query rows a K/V head, the workload has {rows}"
    return prefill_limits(workload)


def prefill_workspace(workload: Workload, threads: int, *, isa: str = BEST) -> int:
    """Bytes beyond Q, K, V and O: the lse, and per thread the tiles of Q, K, V, scores and output
    (one for the keys that all rows see, one for those that are masked), twice where blocks of queries go in pairs."""
    block = known.head_block(workload.head_dim)
    rows, pair = known.prefill_tile(workload.queries, workload.head_dim)
    state = 3 * rows * (block + 16) + rows * (known.BLOCK_N + 16) + 32 * rows
    tile = (2 if pair else 1) * state + 2 * known.BLOCK_N * block
    return 4 * workload.batch * workload.heads * workload.queries + threads * (4 * tile + 3 * _PAGE)


def decode_workspace(workload: Workload, threads: int, *, isa: str = BEST) -> int:
    """Bytes beyond Q, K, V and O: one result per part of the keys and row, their lse, and tiles per thread."""
    block, most = known.head_block(workload.head_dim), known.ROWS[-1]
    rows, parts = workload.batch * workload.heads * workload.queries, max(1, -(-workload.keys // SPLIT))
    tile = known.DECODE_N * (2 * block + 4 * most) + 4 * most * block
    return 4 * rows * (parts * (workload.head_dim + 1) + 1) + threads * (4 * tile + 3 * _PAGE)
