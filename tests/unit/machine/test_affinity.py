import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention.machine.affinity import BindingError, allowed_cpus, bind, overlaps, share_of_rank

TWO_SOCKETS = [[(0,), (2,), (4,), (6,)], [(1,), (3,), (5,), (7,)]]
WITH_SMT = [[(0, 4), (1, 5), (2, 6), (3, 7)]]


def test_ranks_fill_a_socket_before_the_next():
    shares = [share_of_rank(TWO_SOCKETS, 2, 2, 2, rank) for rank in range(4)]
    assert shares == [[0, 2], [4, 6], [1, 3], [5, 7]]


def test_siblings_serve_only_when_the_cores_of_the_rank_are_used_up():
    assert [share_of_rank(WITH_SMT, 1, 2, 2, rank) for rank in range(2)] == [[0, 1], [2, 3]]
    assert [share_of_rank(WITH_SMT, 1, 2, 4, rank) for rank in range(2)] == [[0, 1, 4, 5], [2, 3, 6, 7]]


@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 4))
def test_shares_never_overlap_and_have_as_many_cpus_as_threads(sockets, ranks, threads):
    if threads > 4 // ranks:
        with pytest.raises(BindingError, match="socket of 4 cores"):
            share_of_rank(TWO_SOCKETS, sockets, ranks, threads, 0)
        return
    shares = [share_of_rank(TWO_SOCKETS, sockets, ranks, threads, rank) for rank in range(sockets * ranks)]
    assert all(len(share) == threads for share in shares)
    assert overlaps([("host", share) for share in shares]) == []


@pytest.mark.parametrize(
    ("sockets", "local_rank", "complaint"), [(3, 0, "3 sockets"), (1, 1, "local rank 1"), (2, 2, "local rank 2")]
)
def test_a_node_that_does_not_fit_the_layout(sockets, local_rank, complaint):
    with pytest.raises(BindingError, match=complaint):
        share_of_rank(TWO_SOCKETS, sockets, 1, 2, local_rank)


def test_the_same_core_on_two_hosts_is_no_overlap():
    assert overlaps([("a", [0, 1]), ("b", [0, 1]), ("a", [1, 2])]) == [(0, 2)]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_binding_shows_in_the_mask_seen_from_inside():
    before = allowed_cpus()
    try:
        bind(before[:1])
        assert allowed_cpus() == before[:1]
    finally:
        bind(before)
