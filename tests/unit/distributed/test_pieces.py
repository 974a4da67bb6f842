"""Pieces against brute force: every visible pair in exactly one piece, and nothing that is hidden."""

from collections import Counter

import numpy as np
import pytest

from streaming_attention.distributed.holdings import holding_of
from streaming_attention.distributed.pieces import CHUNK_ROWS, Piece, chunk_of, plan_pieces
from streaming_attention.workload import Workload


def tokens(runs) -> list[int]:
    return [token for start, stop in runs for token in range(start, stop)]


def pairs_of(piece: Piece):
    """What a kernel does with a piece: places of rows and keys."""
    for row in range(piece.row_count):
        seen = piece.key_count if piece.offset is None else min(max(row + piece.offset + 1, 0), piece.key_count)
        for key in range(seen):
            yield piece.rows[0] + row, piece.keys[0] + key


def assert_exact(found: list[Piece], queries, keys, shift: int, causal: bool) -> None:
    rows, columns = tokens(queries), tokens(keys)
    visible = {
        (row, column)
        for row, query in enumerate(rows)
        for column, key in enumerate(columns)
        if not causal or key <= query + shift
    }
    counts = Counter(pair for piece in found for pair in pairs_of(piece))
    assert set(counts) == visible
    assert set(counts.values()) <= {1}


@pytest.mark.parametrize("strategy", ["ring", "zigzag", "spread"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("queries, keys", [(12, 12), (23, 23), (7, 30), (30, 7), (2, 3), (1, 9)])
@pytest.mark.parametrize("causal", [True, False])
def test_pieces_of_all_ranks_are_all_that_is_visible(strategy, ranks, queries, keys, causal):
    workload = Workload("x", queries=queries, keys=keys, causal=causal)
    held = [holding_of(strategy, workload, rank, ranks) for rank in range(ranks)]
    for mine in held:
        for other in held:
            found = plan_pieces(mine.queries, other.keys, keys - queries, causal)
            assert_exact(found, mine.queries, other.keys, keys - queries, causal)


def test_runs_of_any_place_and_length():
    rng = np.random.default_rng(1)
    for _ in range(300):
        queries, keys = (
            [tuple(edges[2 * i : 2 * i + 2]) for i in range(2)]
            for edges in (sorted(rng.integers(0, 20, 4).tolist()) for _ in range(2))
        )
        shift = int(rng.integers(-8, 8))
        assert_exact(plan_pieces(queries, keys, shift, True), queries, keys, shift, True)


def test_zigzag_of_two_ranks_takes_one_call_for_each_chunk_of_queries():
    first, second = [(0, 4), (12, 16)], [(4, 8), (8, 12)]
    assert plan_pieces(first, first, 0, True) == [Piece((0, 4), (0, 4), 0), Piece((4, 8), (0, 8), 4)]
    assert plan_pieces(first, second, 0, True) == [Piece((4, 8), (0, 8))]
    assert plan_pieces(second, first, 0, True) == [Piece((0, 4), (0, 4)), Piece((4, 8), (0, 4))]


@pytest.mark.parametrize("piece", [Piece((3, 50), (0, 40), 5), Piece((0, 7), (2, 9))])
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_a_piece_in_chunks_is_the_same(piece, rows):
    parts = piece.cut(rows)
    assert sorted(pair for part in parts for pair in pairs_of(part)) == sorted(pairs_of(piece))
    assert max(part.row_count for part in parts) <= max(rows, 1)


def test_chunks_are_whole_tasks_of_a_head_or_whole_heads_and_never_more_than_there_is():
    assert chunk_of((1, 8, 4096, 128), 8, 4096, 1) == (1, 2 * CHUNK_ROWS)
    assert chunk_of((1, 8, 4096, 128), 4, 4096, 1) == (1, CHUNK_ROWS)
    assert chunk_of((1, 8, 65536, 128), 8, 4096, 2) == (1, 8 * CHUNK_ROWS)
    assert chunk_of((1, 8, 4096, 128), 8, 64, 1) == (8, 4096)
    assert chunk_of((1, 32, 256, 128), 32, 1024, 1) == (8, 256)
    assert chunk_of((1, 1, 100, 128), 1, 10**7, 1) == (1, 100)
    assert chunk_of((1, 0, 5, 64), 0, 0, 1).rows >= 1
