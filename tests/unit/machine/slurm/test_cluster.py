"""Questions about a cluster, whoever answers them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from streaming_attention.machine.slurm import Cluster, SlurmError, SlurmMissing, commands, fitting_machine, shapes_of
from streaming_attention.machine.slurm.model import Node, Partition
from streaming_attention.machine.topology import Machine

ICELAKE = Node("c1", "idle", (), 2, 36, 2, 144, 0, 256000, 0, ("icelake", "ib"), ("standard",))
NODES = [
    ICELAKE,
    replace(ICELAKE, name="c2", state="mixed", cpus_allocated=8),
    replace(ICELAKE, name="c3", state="down", flags=("not_responding",)),
    replace(ICELAKE, name="g1", sockets=1, cores_per_socket=64, features=("genoa", "ib"), memory_mb=512000),
    replace(ICELAKE, name="t1", partitions=("test",)),
]
PARTITIONS = [Partition("standard", "up", True, 86400, 4), Partition("test", "up", False, 600, 1)]


def source(**answers):
    def failing(*_):
        raise SlurmError("no answer")

    return SimpleNamespace(
        __name__="source", **dict.fromkeys(("nodes", "partitions", "queue", "accounts"), failing) | answers
    )


WHOLE = source(nodes=lambda: NODES, partitions=lambda: PARTITIONS)


def test_nodes_of_the_default_partition_and_of_a_feature():
    cluster = Cluster([WHOLE])
    assert [node.name for node in cluster.nodes()] == ["c1", "c2", "c3", "g1"]
    assert [node.name for node in cluster.nodes("test")] == ["t1"]
    assert [node.name for node in cluster.nodes(constraint="genoa")] == ["g1"]


def test_unknown_names_are_answered_with_those_there_are():
    with pytest.raises(SlurmError, match=r"partition 'gpu' does not exist; there are: standard, test"):
        Cluster([WHOLE]).nodes("gpu")
    with pytest.raises(SlurmError, match=r"feature 'milan'; there are: genoa, ib, icelake"):
        Cluster([WHOLE]).nodes(constraint="milan")


def test_no_default_partition():
    lonely = source(nodes=lambda: NODES, partitions=lambda: PARTITIONS[1:])
    with pytest.raises(SlurmError, match="no default partition; there are: test"):
        Cluster([lonely]).nodes()


def test_the_machine_of_equal_nodes():
    machine = Cluster([WHOLE]).machine(constraint="icelake")
    assert machine == Machine(nodes=2, sockets_per_node=2, cores_per_socket=36, threads_per_core=2, memory_gib=250.0), (
        "the node that is down does not count"
    )


def test_unequal_nodes_are_listed_with_what_picks_them():
    with pytest.raises(SlurmError, match=r"1 of 1 sockets x 64 cores .*constraint genoa.*2 of 2 sockets .*icelake"):
        Cluster([WHOLE]).machine()


def test_no_usable_node():
    with pytest.raises(SlurmError, match="no node is usable: 1 down"):
        fitting_machine([NODES[2]])


def test_the_least_memory_counts():
    assert fitting_machine([ICELAKE, replace(ICELAKE, memory_mb=128000)]).memory_gib == 125.0


def test_shapes_with_the_most_frequent_first():
    assert list(shapes_of(NODES).items()) == [((2, 36, 2, 256000), 4), ((1, 64, 2, 512000), 1)]


def test_the_next_source_answers_where_one_fails():
    assert Cluster([source(), WHOLE]).partitions() == PARTITIONS
    with pytest.raises(SlurmError, match="no answer"):
        Cluster([WHOLE, source()]).queue()


def test_no_accounting_is_no_error():
    def disabled(_):
        raise SlurmError("sacct: Slurm accounting storage is disabled")

    assert Cluster([source(accounts=disabled)]).accounts(["1"]) == {}


def test_missing_commands_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmMissing, match="sinfo: not on the path"):
        commands.run("sinfo", "--version")


def test_failing_commands_tell_their_last_line(monkeypatch, tmp_path):
    command = tmp_path / "scontrol"
    command.write_text("#!/bin/sh\necho 'slurm_load_node error: Unable to contact slurm controller' >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SlurmError, match=r"scontrol show node: .*Unable to contact slurm controller"):
        commands.run("scontrol", "show", "node")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("slurm-wlm 22.05.8", (22, 5)), ("slurm 23.11.10", (23, 11)), ("slurm 24.11.0-0rc2", (24, 11))],
)
def test_version(monkeypatch, printed, expected):
    monkeypatch.setattr(commands, "run", lambda *_: printed)
    assert commands.version.__wrapped__() == expected
