"""Which rows a rank of a user's program holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_pieces import tokens

from streaming_attention.distributed.placement import PLACEMENTS, everywhere, rank_rows, runs_of

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6)


@given(st.integers(0, 60), st.integers(1, 9), st.sampled_from(PLACEMENTS))
def test_every_row_is_on_one_rank_in_ascending_order(count, ranks, placement):
    held = [rank_rows(count, rank, ranks, placement).tolist() for rank in range(ranks)]
    assert sorted(row for rows in held for row in rows) == list(range(count))
    assert all(rows == sorted(rows) for rows in held)
    assert max(map(len, held)) <= min(map(len, held)) + 1


@given(st.integers(0, 60), st.integers(1, 9), st.sampled_from(PLACEMENTS))
def test_lengths_of_the_even_shares_tell_the_same_rows(count, ranks, placement):
    held = [rank_rows(count, rank, ranks, placement) for rank in range(ranks)]
    runs = runs_of("q", list(map(len, held)), placement)
    assert [tokens(some) for some in runs] == [rows.tolist() for rows in held]


@given(LENGTHS)
def test_shares_of_any_lengths_follow_each_other(lengths):
    runs = runs_of("k", lengths, "contiguous")
    assert [len(tokens(some)) for some in runs] == lengths
    assert [token for some in runs for token in tokens(some)] == list(range(sum(lengths)))


def test_a_zigzag_must_be_even():
    with pytest.raises(ValueError, match=r"k: rank 0 holds 5 of 8 tokens; .* the 4 of rank_rows\(8, 0, 2, 'zigzag'\)"):
        runs_of("k", [5, 3], "zigzag")


def test_the_same_everywhere():
    assert everywhere("q", [2, 2]) == [((0, 2),), ((0, 2),)]
    with pytest.raises(ValueError, match="q: 3 rows on rank 1, 2 on rank 0"):
        everywhere("q", [2, 3])


@pytest.mark.parametrize(
    "arguments, error, said",
    [
        ((8, 2, 2), ValueError, "rank: 2 is not from 0 to 1"),
        ((-1, 0, 2), ValueError, "tokens: -1"),
        ((8, 0, 0), ValueError, "ranks: 0"),
        ((8.0, 0, 2), TypeError, "tokens: 8.0"),
        ((8, 0, 2, "zag"), ValueError, "placement: 'zag' is not known; allowed: contiguous, zigzag"),
    ],
)
def test_errors_name_the_argument(arguments, error, said):
    with pytest.raises(error, match=said):
        rank_rows(*arguments)
