"""How a call is cut into pieces of work: tiles of query rows, and splits of the keys where rows are few.

The cut depends on the shapes alone, never on the number of threads, so that every sum is taken in the same order and
the same inputs give the same bits on any number of threads. Light to import: the registry asks for workspaces.
"""

from __future__ import annotations

from streaming_attention.workload import DTYPES, Workload

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
    """Bytes of one rank's scratch tiles and partial results: O(threads x tile + rows x splits x head_dim)."""
    heads = workload.batch * workload.kv_heads
    rows = workload.heads // workload.kv_heads * workload.queries
    tile = ROWS * (block + workload.head_dim + 2)
    partials = heads * rows * splits(heads, rows, -(-workload.keys // ranks)) * (workload.head_dim + 2)
    return (threads * tile + partials) * DTYPES[workload.dtype]
