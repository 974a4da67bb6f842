"""Ranks in right and wrong places, described rather than started."""

from dataclasses import replace

import pytest
from test_topology import emulate

from streaming_attention.machine.affinity import BindingError
from streaming_attention.machine.binding import Seat, cpus_of_rank, crowding, misbinding, seat, separated
from streaming_attention.machine.layout import Layout

HYBRID = Layout(nodes=2, sockets=2, ranks_per_socket=1, threads=2)


@pytest.fixture
def server(tmp_path):
    """Two sockets of 4 cores with two hardware threads: socket 0 has CPUs 0-3 and 8-11."""
    return emulate(tmp_path, sockets=2, cores=4, smt=2)


def seats_on(server, *masks, monkeypatch, hosts=None):
    seats = []
    for number, mask in enumerate(masks):
        monkeypatch.setattr("streaming_attention.machine.binding.allowed_cpus", lambda mask=mask: sorted(mask))
        seats.append(replace(seat(server), host=hosts[number] if hosts else "n1"))
    return seats


@pytest.fixture
def sitting(server, monkeypatch):
    return lambda *masks, hosts=None: seats_on(server, *masks, monkeypatch=monkeypatch, hosts=hosts)


def test_a_seat_counts_cores_and_sockets(sitting):
    one, both, across = sitting([0], [0, 8], [3, 4])
    assert (one.cores, one.sockets, one.host_sockets, one.host_cores_per_socket) == (1, (0,), 2, 4)
    assert (both.cores, both.sockets) == (1, (0,))
    assert (across.cores, across.sockets) == (2, (0, 1))


def test_what_all_were_given_is_shared_out(server, sitting):
    everything = list(range(16))
    seats = sitting(*[everything] * 4, hosts=["n1", "n1", "n2", "n2"])
    assert [cpus_of_rank(seats, rank, HYBRID, server) for rank in range(4)] == [[0, 1], [4, 5], [0, 1], [4, 5]]


def test_what_one_was_given_is_where_it_stays(server, sitting):
    seats = sitting([2, 3], [6, 7])
    layout = Layout(sockets=2, threads=2)
    assert [cpus_of_rank(seats, rank, layout, server) for rank in range(2)] == [[2, 3], [6, 7]]


def test_whole_cores_that_one_was_given_are_used_once(server, sitting):
    seats = sitting([0, 8, 1, 9], [4, 12, 5, 13])
    layout = Layout(sockets=2, threads=2)
    assert [cpus_of_rank(seats, rank, layout, server) for rank in range(2)] == [[0, 1], [4, 5]]


def test_too_few_cpus_from_the_launcher(server, sitting):
    with pytest.raises(BindingError, match="share of a rank is 1 CPUs"):
        cpus_of_rank(sitting([0], [4]), 0, Layout(sockets=2, threads=2), server)


def test_a_lone_rank_takes_the_first_socket(server, sitting):
    assert cpus_of_rank(sitting(range(16)), 0, Layout(threads=4), server) == [0, 1, 2, 3]


def test_ranks_in_their_places(sitting):
    seats = sitting([0, 1], [4, 5], [0, 1], [4, 5], hosts=["n1", "n1", "n2", "n2"])
    assert separated(seats)
    assert crowding(seats, HYBRID) is None
    assert misbinding(seats, HYBRID) is None


@pytest.mark.parametrize(
    ("hosts", "complaint"),
    [
        (["n1"] * 4, "the ranks are on 1 hosts, the layout has 2 nodes"),
        (["n1", "n2", "n3", "n4"], "on 4 hosts"),
        (["n1", "n1", "n1", "n2"], "2 ranks on every node, there are 3 on n1, 1 on n2"),
    ],
)
def test_wrong_hosts(sitting, hosts, complaint):
    assert complaint in crowding(sitting([0], [1], [2], [3], hosts=hosts), HYBRID)


@pytest.mark.parametrize(
    ("masks", "complaint"),
    [
        (([0, 1], [1, 4]), "ranks share cores: rank 0 n1 [0, 1]; rank 1 n1 [1, 4]"),
        (([0, 1], [4]), "rank 1 on n1: its mask [4] has 1 CPUs, the layout 2 threads a rank"),
        (([0, 1], [3, 4]), "rank 1 on n1: its mask [3, 4] spans 2 sockets"),
        (([0, 8], [4, 5]), "rank 0 on n1: its CPUs [0, 8] are hardware threads of 1 cores"),
        (([0, 1], [2, 3]), "n1: 1 ranks belong on each of 2 sockets, there are 2 on socket 0"),
    ],
)
def test_wrong_masks(sitting, masks, complaint):
    assert complaint in misbinding(sitting(*masks), Layout(sockets=2, threads=2))


def test_hardware_threads_are_right_where_a_layout_needs_them(sitting):
    full = Layout(threads=8)
    assert misbinding(sitting([0, 1, 2, 3, 8, 9, 10, 11]), full) is None


def test_a_host_that_shows_fewer_sockets_is_not_judged_by_them():
    seats = [Seat("n1", (cpu,), 1, (0,), 1, 2) for cpu in (0, 1)]
    assert misbinding(seats, Layout(sockets=2)) is None
