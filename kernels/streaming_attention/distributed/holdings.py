"""Which tokens of a workload each rank holds, and which heads it computes. Arithmetic alone: plans ask."""

from __future__ import annotations

import itertools

from streaming_attention.distributed.choose import resolve
from streaming_attention.distributed.strategies import AUTO, OVERLAP
from streaming_attention.slices import Holding, Slice, key_slice, zigzag_slices
from streaming_attention.workload import Workload


def spread(workload: Workload, rank: int, ranks: int) -> Holding:
    """All queries on every rank, the keys in contiguous slices."""
    return Holding(((0, workload.queries),), (key_slice(workload.keys, rank, ranks),))


def by_sequence(workload: Workload, rank: int, ranks: int) -> Holding:
    """Queries and keys in contiguous slices."""
    return Holding((key_slice(workload.queries, rank, ranks),), (key_slice(workload.keys, rank, ranks),))


def zigzag(workload: Workload, rank: int, ranks: int) -> Holding:
    """Queries and keys in two chunks, one early and one late."""
    return Holding(zigzag_slices(workload.queries, rank, ranks), zigzag_slices(workload.keys, rank, ranks))


HOLDINGS = {"spread": spread, "zigzag": zigzag}
"""Strategy -> its holding; the others share out by sequence."""


def holding_of(strategy: str, workload: Workload, rank: int, ranks: int) -> Holding:
    """The tokens that a rank holds before a call, in ascending order."""
    return HOLDINGS.get(strategy, by_sequence)(workload, rank, ranks)


def streaming(
    workload: Workload, rank: int, ranks: int, threads: int, *, strategy: str = AUTO, overlap: str = OVERLAP[0], **_
) -> Holding:
    """What a rank of the method ``streaming`` holds, with the method's options."""
    return holding_of(resolve(strategy, workload, ranks, threads), workload, rank, ranks)


def streaming_loops(workload: Workload, rank: int, ranks: int, threads: int, **_) -> Holding:
    """What a rank of ``streaming_loops`` holds."""
    return spread(workload, rank, ranks)


class Heads:
    """The query heads that a rank computes, and the K/V heads that they need.

    Parameters
    ----------
    queries, keys : (int, int)
        Heads from, and up to but without.
    group : int
        Query heads of a K/V head.
    """

    def __init__(self, queries: Slice, group: int):
        start, stop = queries
        self.queries, self.group = queries, group
        self.keys = (start // group, -(-stop // group)) if stop > start else (0, 0)

    @classmethod
    def of_rank(cls, workload: Workload, rank: int, ranks: int) -> Heads:
        """An even share of the query heads."""
        return cls(key_slice(workload.heads, rank, ranks), workload.heads // workload.kv_heads)

    def calls(self) -> list[tuple[Slice, Slice]]:
        """Query heads and K/V heads, counted from the rank's first, that a kernel can take together.

        Groups of which a rank has all heads go in one call; a part of a group is a call of its own.
        """
        start, stop = self.queries
        cuts = [start, -(-start // self.group) * self.group, stop // self.group * self.group, stop]
        cuts = sorted({min(max(cut, start), stop) for cut in cuts})
        spans = [(a, b) for a, b in itertools.pairwise(cuts) if b > a]
        first = self.keys[0]
        return [((a - start, b - start), (a // self.group - first, -(-b // self.group) - first)) for a, b in spans]
