"""Which keys a query sees: those of its own sequence and, under a causal mask, none beyond its own place.

A batch of sequences of any lengths lies side by side along the tokens, and ranks share out the tokens whatever sequence
they belong to. One sequence of all tokens is the ordinary case.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from streaming_attention.distributed.pieces import Piece, plan_pieces
from streaming_attention.slices import Slice
from streaming_attention.workload import Workload


class Mask(NamedTuple):
    """Which keys a query sees.

    Parameters
    ----------
    sequences : tuple of ((int, int), (int, int))
        The queries and the keys of each sequence, ascending.
    causal : bool
        Whether a query sees the keys up to its own place alone; a sequence's last query stands at its last key.
    """

    sequences: tuple[tuple[Slice, Slice], ...]
    causal: bool

    @classmethod
    def of(cls, workload: Workload) -> Mask:
        """One sequence."""
        return cls((((0, workload.queries), (0, workload.keys)),), workload.causal)

    @classmethod
    def of_starts(cls, queries: Sequence[int], keys: Sequence[int], causal: bool) -> Mask:
        """Sequences by where they start, and the end (``cu_seqlens``)."""
        return cls(tuple(zip(itertools.pairwise(queries), itertools.pairwise(keys), strict=True)), causal)

    @property
    def longest(self) -> int:
        """Keys of the sequence that has most."""
        return max((stop - start for _, (start, stop) in self.sequences), default=0)

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key of one sequence."""
        return sum((b - a) * (d - c) for (a, b), (c, d) in self.sequences)

    def within(self, queries: Sequence[Slice]) -> Mask:
        """The sequences that have some of these queries."""
        return self._replace(sequences=tuple(one for one in self.sequences if clip(queries, one[0])[1]))

    def rows(self, queries: Sequence[Slice]) -> list[Slice]:
        """Places of runs of queries in memory, cut where a sequence ends."""
        found = []
        for within, _ in self.sequences:
            at, runs = clip(queries, within)
            for start, stop in runs:
                found.append((at, at + stop - start))
                at += stop - start
        return found

    def pieces(self, queries: Sequence[Slice], keys: Sequence[Slice]) -> list[Piece]:
        """As few pieces as do all that is visible between runs of queries and runs of keys.

        Parameters
        ----------
        queries, keys : sequence of (int, int)
            Ascending, in the order in which they lie in memory.
        """
        return [piece for sequence in self.sequences for piece in self._of_one(sequence, queries, keys)]

    def _of_one(self, sequence: tuple[Slice, Slice], queries, keys) -> list[Piece]:
        row, query_runs = clip(queries, sequence[0])
        key, key_runs = clip(keys, sequence[1])
        shift = sequence[1][1] - sequence[0][1]
        return [piece.moved(row, key) for piece in plan_pieces(query_runs, key_runs, shift, self.causal)]


def clip(runs: Sequence[Slice], within: Slice) -> tuple[int, list[Slice]]:
    """The tokens of some runs that lie in a slice: the first one's place in memory, and the runs that they are.

    >>> clip([(0, 4), (12, 16)], (2, 14))
    (2, [(2, 4), (12, 14)])
    """
    first, last = within
    before = sum(max(0, min(stop, first) - start) for start, stop in runs)
    return before, [(max(start, first), min(stop, last)) for start, stop in runs if max(start, first) < min(stop, last)]
