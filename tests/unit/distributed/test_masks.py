"""Masks of several sequences against brute force, however sequences and runs of tokens cut each other."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from test_pieces import pairs_of, tokens

from streaming_attention.distributed.masks import Mask, clip
from streaming_attention.distributed.pieces import SHORT, Piece, join
from streaming_attention.workload import Workload

LENGTHS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=5)


@st.composite
def runs(draw, count: int):
    """Up to three runs of so many tokens, ascending; some may be empty."""
    edges = sorted(draw(st.lists(st.integers(0, count), min_size=6, max_size=6)))
    return list(zip(edges[::2], edges[1::2], strict=True))


@st.composite
def problems(draw):
    """A mask, and some queries and keys of its sequences."""
    lengths = draw(LENGTHS)
    starts = [list(itertools.accumulate(part, initial=0)) for part in zip(*lengths, strict=True)]
    mask = Mask.of_starts(*starts, draw(st.booleans()))
    return mask, draw(runs(starts[0][-1])), draw(runs(starts[1][-1]))


def visible(mask: Mask) -> set:
    """Queries and the keys that they see."""
    found = set()
    for (first, last), (start, stop) in mask.sequences:
        shift = stop - last
        every = itertools.product(range(first, last), range(start, stop))
        found |= {(query, key) for query, key in every if not mask.causal or key <= query + shift}
    return found


def parts(piece: Piece):
    """A piece of several sequences as one for each."""
    if piece.starts is None:
        return [piece]
    edges = zip(*map(itertools.pairwise, piece.starts), strict=True)
    whole = [Piece(rows, keys, (keys[1] - keys[0]) - (rows[1] - rows[0])) for rows, keys in edges]
    return [one._replace(offset=one.offset if piece.offset == 0 else None).moved(*starts_of(piece)) for one in whole]


def starts_of(piece: Piece) -> tuple[int, int]:
    return piece.rows[0], piece.keys[0]


@given(problems(), st.integers(1, 9))
def test_pieces_are_all_that_is_visible_joined_or_not(problem, rows):
    mask, queries, keys = problem
    found = mask.pieces(queries, keys)
    joined = [piece for piece, _ in join([(piece, False) for piece in found], mask.causal, rows)]
    right = sorted(
        (row, key)
        for row, query in enumerate(tokens(queries))
        for key, other in enumerate(tokens(keys))
        if (query, other) in visible(mask)
    )
    assert sorted(pair for piece in found for pair in pairs_of(piece)) == right
    assert sorted(pair for piece in joined for part in parts(piece) for pair in pairs_of(part)) == right
    assert all(piece.row_count <= rows for piece in joined if piece.starts)
    assert mask.within(queries).pieces(queries, keys) == found


@given(problems())
def test_rows_are_cut_where_sequences_end(problem):
    mask, queries, keys = problem
    rows = mask.rows(queries)
    assert [row for start, stop in rows for row in range(start, stop)] == list(range(len(tokens(queries))))
    assert {piece.rows for piece in mask.pieces(queries, keys)} <= set(rows)


@given(runs(20), st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted))
def test_clipped_runs_lie_side_by_side(some, within):
    at, found = clip(some, tuple(within))
    assert tokens(found) == [token for token in tokens(some) if within[0] <= token < within[1]]
    assert not found or tokens(some)[at] == found[0][0]


def test_short_neighbours_share_a_call_and_long_ones_do_not():
    short = Mask.of_starts([0, 5, 8, 12], [0, 5, 8, 12], True)
    (piece,) = short.pieces([(0, 12)], [(0, 12)])[:1]
    assert piece == Piece((0, 5), (0, 5), 0)
    (one,) = joined(short, 12, 12)
    assert one == Piece((0, 12), (0, 12), 0, ((0, 5, 8, 12), (0, 5, 8, 12)))
    assert one.cut(2) == [one]
    long = Mask.of_starts([0, 1, 2], [0, SHORT, 2 * SHORT], True)
    assert [piece.starts for piece in joined(long, 2, 2 * SHORT)] == [None, None]


def test_pieces_with_other_marks_stay_apart():
    first, second = Mask.of_starts([0, 2, 4], [0, 2, 4], False).pieces([(0, 4)], [(0, 4)])
    assert [piece for piece, _ in join([(first, True), (second, False)], False, 9)] == [first, second]
    assert len(list(join([(first, True), (second, True)], False, 9))) == 1


def joined(mask: Mask, queries: int, keys: int) -> list[Piece]:
    pieces = mask.pieces([(0, queries)], [(0, keys)])
    return [piece for piece, _ in join([(piece, False) for piece in pieces], mask.causal, 10**6)]


def test_one_sequence_is_the_workload():
    mask = Mask.of(Workload("x", queries=3, keys=7, causal=True))
    assert mask == Mask.of_starts([0, 3], [0, 7], True)
    assert (mask.longest, mask.pairs) == (7, 21)
    assert Mask.of_starts([0], [0], True).longest == 0
