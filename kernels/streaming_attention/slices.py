"""Which tokens a rank of several holds, and how much of the attention lies between two slices.

Arithmetic alone, so that a plan can ask before any array exists.
"""

from __future__ import annotations

from dataclasses import dataclass

from streaming_attention.workload import Workload

Slice = tuple[int, int]
"""First token, and the one after the last."""


@dataclass(frozen=True)
class Holding:
    """The tokens that a rank holds: runs of queries and of keys, ascending, side by side in its memory.

    Parameters
    ----------
    queries, keys : tuple of (int, int)
        Runs may be empty.
    """

    queries: tuple[Slice, ...]
    keys: tuple[Slice, ...]

    @property
    def query_count(self) -> int:
        return sum(stop - start for start, stop in self.queries)

    @property
    def key_count(self) -> int:
        return sum(stop - start for start, stop in self.keys)

    @classmethod
    def whole(cls, workload: Workload) -> Holding:
        """All tokens, as one rank alone holds them."""
        return cls(((0, workload.queries),), ((0, workload.keys),))


def key_slice(keys: int, rank: int, ranks: int) -> Slice:
    """A rank's contiguous share of the keys; sizes differ by at most one, longer slices first.

    >>> [key_slice(10, rank, 4) for rank in range(4)]
    [(0, 3), (3, 6), (6, 8), (8, 10)]
    """
    size, longer = divmod(keys, ranks)
    start = rank * size + min(rank, longer)
    return start, start + size + (rank < longer)


def zigzag_slices(tokens: int, rank: int, ranks: int) -> tuple[Slice, Slice]:
    """A rank's two of ``2 * ranks`` chunks, the r-th from the front and the r-th from the back.

    Under a causal mask late tokens have more to do than early ones; the two chunks together have the same for all.

    >>> [zigzag_slices(16, rank, 2) for rank in range(2)]
    [((0, 4), (12, 16)), ((4, 8), (8, 12))]
    """
    return key_slice(tokens, rank, 2 * ranks), key_slice(tokens, 2 * ranks - 1 - rank, 2 * ranks)


def pairs_between(workload: Workload, queries: Slice, keys: Slice) -> int:
    """Number of visible (query, key) pairs of one head between a slice of the queries and a slice of the keys.

    Causal is bottom-right aligned, as in :func:`streaming_attention.models.visible_pairs`.
    """
    (first, last), (start, stop) = queries, keys
    width = max(0, stop - start)
    if not workload.causal:
        return max(0, last - first) * width
    seen = workload.keys - workload.queries + 1 - start  # of the keys from start on, query 0 sees so many
    return _staircase(last - 1 + seen, width) - _staircase(min(first, last) - 1 + seen, width)


def _staircase(last: int, width: int) -> int:
    """Sum of min(i, width) over i = 1, ..., last."""
    rising = max(0, min(last, width))
    return rising * (rising + 1) // 2 + width * max(0, last - width)
