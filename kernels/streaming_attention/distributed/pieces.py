"""A rank's queries against a block of keys, cut into pieces that a kernel can do in one call.

Queries and keys of a rank are runs of tokens that lie side by side in memory but not in the sequence. Under a causal
mask a run of queries sees all of some runs of keys, a staircase of others and nothing of the rest. A kernel knows one
mask: query i sees the keys j <= i + offset.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from streaming_attention.slices import Slice, key_slice

CHUNK_FLOPS = 1 << 30
"""Of one thread between two looks at the network: some 10 ms."""
CHUNK_ROWS = 384
"""Rows of a K/V head that one task of prefill takes; chunks of fewer cost up to a sixth (Zen 5, one core)."""
SHORT = 512
"""Keys of a sequence below which it shares a call with its neighbours: the call itself would cost more."""


class Chunk(NamedTuple):
    """What is computed at a time: some rows of some K/V heads."""

    kv_heads: int
    rows: int


class Piece(NamedTuple):
    """Some of the rows held against some of the keys of a block.

    Parameters
    ----------
    rows, keys : (int, int)
        Places among the queries that the rank holds, and among the keys of the block.
    offset : int or None
        The piece's query i sees its keys j <= i + offset; None: every query sees every key.
    starts : (tuple of int, tuple of int), optional
        Of several sequences: where each starts among the rows and among the keys, and the end. The last query of each
        stands at its last key.
    """

    rows: Slice
    keys: Slice
    offset: int | None = None
    starts: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def row_count(self) -> int:
        return self.rows[1] - self.rows[0]

    @property
    def key_count(self) -> int:
        return self.keys[1] - self.keys[0]

    @property
    def ends_together(self) -> bool:
        """Whether the last query stands at the last key, or nobody can tell."""
        return self.row_count == 1 if self.offset is None else self.offset == self.key_count - self.row_count

    def moved(self, row: int, key: int) -> Piece:
        """The same so many rows and keys further on."""
        (a, b), (c, d) = self.rows, self.keys
        return self._replace(rows=(a + row, b + row), keys=(c + key, d + key))

    def cut(self, rows: int) -> list[Piece]:
        """The piece as pieces of about so many rows; several sequences stay together."""
        if self.starts:
            return [self]
        count = max(1, -(-self.row_count // rows))
        return [self._part(*key_slice(self.row_count, part, count)) for part in range(count)]

    def _part(self, first: int, last: int) -> Piece:
        start = self.rows[0]
        return Piece((start + first, start + last), self.keys, None if self.offset is None else self.offset + first)


def plan_pieces(queries: Sequence[Slice], keys: Sequence[Slice], shift: int, causal: bool) -> list[Piece]:
    """As few pieces as do all that is visible between runs of queries and runs of keys.

    Parameters
    ----------
    queries, keys : sequence of (int, int)
        Runs of tokens, ascending, in the order in which they lie in memory.
    shift : int
        Query i stands at key i + shift.
    causal : bool
        Whether a query sees the keys up to its own place alone.

    Returns
    -------
    list of Piece
        Pieces of the same rows follow each other. Rows that see nothing may be in no piece.
    """
    pieces, row = [], 0
    for start, stop in queries:
        rows = row, row + stop - start
        row = rows[1]
        if stop > start:
            every = _causal(rows, start + shift, keys) if causal else [Piece(rows, (0, sum(b - a for a, b in keys)))]
            pieces += [piece for piece in every if piece.key_count]
    return pieces


def _causal(rows: Slice, place: int, keys: Sequence[Slice]) -> list[Piece]:
    """Pieces of one run of queries, the first of which stands at key ``place``.

    Runs that all queries see come first and make one piece; a staircase joins it if its first query sees all of them.
    """
    pieces, whole, at = [], 0, 0
    last = place + rows[1] - rows[0] - 1
    for start, stop in keys:
        count = stop - start
        if count == 0 or last < start:
            continue
        if place >= stop - 1:
            whole = at + count
        elif place >= start - 1:
            pieces.append(Piece(rows, (0, at + count), at + place - start))
            whole = 0
        else:
            pieces.append(Piece(rows, (at, at + count), place - start))
        at += count
    return ([Piece(rows, (0, whole))] if whole else []) + pieces


def join(pieces: Iterable[tuple[Piece, bool]], causal: bool, rows: int) -> Iterator[tuple[Piece, bool]]:
    """Neighbours as one piece, where a call of several sequences can do them: short ones, up to so many rows together.

    Parameters
    ----------
    pieces : iterable of (Piece, bool)
        Those with the same mark can be joined.
    """
    group: list[Piece] = []
    mark = False
    for piece, its in pieces:
        if group and not (its == mark and _continues(group, piece, causal, rows)):
            yield _joint(group, causal), mark
            group = []
        group.append(piece)
        mark = its
    if group:
        yield _joint(group, causal), mark


def _continues(group: list[Piece], piece: Piece, causal: bool, rows: int) -> bool:
    last = group[-1]
    return (
        (last.rows[1], last.keys[1]) == (piece.rows[0], piece.keys[0])
        and max(last.key_count, piece.key_count) < SHORT
        and piece.rows[1] - group[0].rows[0] <= rows
        and (not causal or (last.ends_together and piece.ends_together))
    )


def _joint(group: list[Piece], causal: bool) -> Piece:
    if len(group) == 1:
        return group[0]
    (row, _), (key, _) = group[0].rows, group[0].keys
    (_, last_row), (_, last_key) = group[-1].rows, group[-1].keys
    starts = (
        (*(piece.rows[0] - row for piece in group), last_row - row),
        (*(piece.keys[0] - key for piece in group), last_key - key),
    )
    return Piece((row, last_row), (key, last_key), 0 if causal else None, starts)


def chunk_of(shape: tuple[int, ...], kv_heads: int, keys: int, threads: int) -> Chunk:
    """Chunks of about :data:`CHUNK_FLOPS` a thread against so many keys: heads, or rows of a head in whole tasks.

    Parameters
    ----------
    shape : (batch, heads, rows, head_dim)
        Of the rows that a rank computes.
    """
    batch, heads, rows, head_dim = shape
    group = max(1, heads // max(1, kv_heads))
    wanted = threads * CHUNK_FLOPS / max(1, 4 * batch * group * head_dim * keys)
    if wanted >= rows:
        return Chunk(min(kv_heads, max(1, round(wanted / max(1, rows)))), max(1, rows))
    tasks = 4 * threads if threads > 1 else 1  # as many as prefill wants before it makes them smaller
    whole = -(-CHUNK_ROWS * tasks // group)
    return Chunk(1, min(rows, whole * math.ceil(wanted / whole)))
