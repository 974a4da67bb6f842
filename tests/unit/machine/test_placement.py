"""Amounts, the spreading of ranks over sockets, and layouts that don't fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention.machine.layout import Layout
from streaming_attention.machine.placement import amounts, layouts, misfit, spread
from streaming_attention.machine.topology import Machine

CLUSTER = Machine(nodes=8, sockets_per_node=2, cores_per_socket=26, threads_per_core=2, memory_gib=192)
LAPTOP = Machine(cores_per_socket=2, memory_gib=8)
SMALL_COUNTS = st.integers(1, 12)
MACHINES = st.builds(
    Machine,
    nodes=SMALL_COUNTS,
    sockets_per_node=st.integers(1, 4),
    cores_per_socket=SMALL_COUNTS,
    threads_per_core=st.integers(1, 2),
    memory_gib=st.just(8.0),
)


def slugs(machine=CLUSTER, **fields):
    return [layout.slug for layout in layouts({"threads": 1, "binding": "cores", **fields}, machine)]


@pytest.mark.parametrize(
    ("amount", "most", "numbers"),
    [
        ("powers", 1, [1]),
        ("powers", 2, [1, 2]),
        ("powers", 26, [1, 2, 4, 8, 16, 26]),
        ("powers", 64, [1, 2, 4, 8, 16, 32, 64]),
        ("all", 26, [26]),
        (52, 26, [52]),
    ],
)
def test_amounts(amount, most, numbers):
    assert amounts(amount, most) == numbers


@given(st.integers(1, 5000))
def test_powers_double_up_to_all(most):
    numbers = amounts("powers", most)
    assert numbers[0] == 1 and numbers[-1] == most
    assert numbers[:-1] == [2**exponent for exponent in range(len(numbers) - 1)]
    assert len(numbers) == 1 or numbers[-2] < most <= 2 * numbers[-2]


@pytest.mark.parametrize(
    ("ranks", "shape"),
    [
        (1, (1, 1, 1)),
        (2, (1, 2, 1)),
        (3, (3, 1, 1)),
        (4, (2, 2, 1)),
        (16, (8, 2, 1)),
        (32, (8, 2, 2)),
        (17, (1, 1, 17)),
    ],
)
def test_ranks_fill_sockets_then_nodes_then_share(ranks, shape):
    assert spread(ranks, CLUSTER) == shape


@given(st.integers(1, 200), MACHINES)
def test_spreading_keeps_every_rank_and_stays_on_the_machine(ranks, machine):
    nodes, sockets, ranks_per_socket = spread(ranks, machine)
    assert nodes * sockets * ranks_per_socket == ranks
    assert nodes <= machine.nodes and sockets <= machine.sockets_per_node


def test_threads_go_up_to_the_cores_of_a_rank():
    assert slugs(ranks_per_socket=4, nodes=1, threads="powers") == ["n1s2r4t1", "n1s2r4t2", "n1s2r4t4", "n1s2r4t6"]
    assert slugs(LAPTOP, ranks="powers", threads="all") == ["n1s1r1t2", "n1s1r2t1"]


def test_a_layout_without_ranks_is_one_rank():
    assert slugs(LAPTOP, threads="powers") == ["n1s1r1t1", "n1s1r1t2"]
    assert slugs(threads=26) == ["n1s1r1t26"]


def test_nodes_are_used_with_all_their_sockets_unless_told():
    assert slugs(nodes="powers") == ["n1s2r1t1", "n2s2r1t1", "n4s2r1t1", "n8s2r1t1"]
    assert slugs(nodes=2, sockets=1) == ["n2s1r1t1"]
    assert slugs(sockets="powers") == ["n1s1r1t1", "n1s2r1t1"]


def test_without_binding_threads_may_go_beyond_the_socket():
    assert slugs(threads="all", binding="none") == ["n1s1r1t52-none"]
    assert misfit(Layout(threads=104, binding="none"), CLUSTER) is None
    assert "a node of 52 cores" in misfit(Layout(threads=105, binding="none"), CLUSTER)


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Layout(threads=52), None),
        (Layout(threads=53), "1 ranks x 53 threads don't fit a socket of 26 cores x 2 hardware threads"),
        (Layout(nodes=8, sockets=2, ranks_per_socket=13, threads=4), None),
        (Layout(ranks_per_socket=4, threads=13), "4 ranks x 13 threads"),
        (Layout(nodes=9), "9 nodes, the machine 8"),
        (Layout(sockets=3), "3 sockets a node, the machine 2"),
        (Layout(ranks_per_socket=27), "27 ranks x 1 threads"),
    ],
)
def test_what_fits_the_cluster(layout, reason):
    found = misfit(layout, CLUSTER)
    assert found is None if reason is None else reason in found


@given(MACHINES, st.sampled_from(["cores", "none"]))
def test_words_give_layouts_that_fit(machine, binding):
    """``powers`` and ``all`` never ask for more than there is, but for ranks that can't be shared out evenly."""
    fields = {"nodes": "powers", "sockets": "powers", "ranks_per_socket": "powers", "threads": "powers"}
    found = list(layouts({**fields, "binding": binding}, machine))
    assert found and all(misfit(layout, machine) is None for layout in found)
    assert max(layout.workers for layout in found) == machine.cores
