"""Slices tile the tokens, and pairs between slices are those that brute force counts."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention import models
from streaming_attention.slices import key_slice, pairs_between, zigzag_slices
from streaming_attention.workload import Workload

TOKENS, RANKS = st.integers(0, 40), st.integers(1, 7)


@given(TOKENS, RANKS)
def test_zigzag_chunks_hold_every_token_once(tokens, ranks):
    held = [
        token
        for rank in range(ranks)
        for start, stop in zigzag_slices(tokens, rank, ranks)
        for token in range(start, stop)
    ]
    assert sorted(held) == list(range(tokens))


@given(st.integers(1, 6), st.integers(1, 12))
def test_zigzag_gives_every_rank_the_same_causal_work(ranks, size):
    tokens = 2 * ranks * size
    workload = Workload("x", queries=tokens, keys=tokens, causal=True)
    work = [
        sum(pairs_between(workload, chunk, (0, tokens)) for chunk in zigzag_slices(tokens, rank, ranks))
        for rank in range(ranks)
    ]
    assert len(set(work)) == 1


@pytest.mark.parametrize("causal", [False, True])
@given(queries=st.integers(1, 9), keys=st.integers(1, 9), data=st.data())
def test_pairs_by_brute_force(causal, queries, keys, data):
    workload = Workload("x", queries=queries, keys=keys, causal=causal)
    (first, last), (start, stop) = (
        sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count)))) for count in (queries, keys)
    )
    pairs = product(range(first, last), range(start, stop))
    counted = sum(not causal or key <= query + keys - queries for query, key in pairs)
    assert pairs_between(workload, (first, last), (start, stop)) == counted


@given(st.integers(1, 30), st.integers(1, 30), RANKS)
def test_slices_of_the_keys_share_out_all_pairs(queries, keys, ranks):
    workload = Workload("x", queries=queries, keys=keys, causal=True)
    parts = [pairs_between(workload, (0, queries), key_slice(keys, rank, ranks)) for rank in range(ranks)]
    assert sum(parts) == models.visible_pairs(workload)
