"""How a call is cut into pieces of work: tiles of query rows, and splits of the keys where rows are few.

The cut depends on the shapes alone, never on the number of threads, so that every sum is taken in the same order and
the same inputs give the same bits on any number of threads. Light to import: the registry asks for workspaces.
"""

from __future__ import annotations

from streaming_attention.dtypes import DTYPES
from streaming_attention.workload import Workload

BLOCK = 128
"""Keys that share one step of the online softmax, unless the caller says otherwise."""

ROWS = 32
"""Query rows of a tile: they share one pass over a block of keys."""

SPLIT = 1024
"""Keys of a split, when threads share out keys instead of rows."""

FEW_TILES = 64
"""Below this many tiles there may be threads without one, so the keys are split too."""


def tiles(rows: int) -> int:
    """Tiles that ``rows`` query rows of one K/V head are cut into."""
    return -(-rows // ROWS)


def splits(heads: int, rows: int, keys: int) -> int:
    """Splits of the keys of each K/V head; 1 where tiles alone keep many threads busy.

    Parameters
    ----------
    heads : int
        K/V heads of all batches together.
    rows : int
        Query rows of one of them: queries x the query heads that share it.
    """
    return 1 if heads * tiles(rows) >= FEW_TILES else max(1, -(-keys // SPLIT))


def workspace(workload: Workload, threads: int, *, block: int, ranks: int = 1) -> int:
    """Bytes of the rank that holds most, beyond Q, K, V and O.

    One block of scores a thread; peak, total and log-sum-exp of every row; the states of every split where keys are
    split, and of another rank where there are several; the list of work. O(threads x block + rows x head_dim).
    """
    heads = workload.batch * workload.kv_heads
    rows = workload.heads // workload.kv_heads * workload.queries
    parts = splits(heads, rows, -(-workload.keys // ranks))
    states = (parts if parts > 1 else 0) + (ranks > 1)
    numbers = threads * block + heads * rows * (3 + states * (workload.head_dim + 2))
    return numbers * DTYPES[workload.dtype] + 8 * (rows + heads * tiles(rows) * parts)
