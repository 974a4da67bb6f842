"""Text of SLURM's commands, as 22.05 printed it."""

from pathlib import Path

import pytest

from streaming_attention.machine.slurm import text
from streaming_attention.machine.slurm.commands import SlurmError
from streaming_attention.machine.slurm.model import Partition

RECORDED = Path(__file__).parent / "recorded" / "22.05"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def test_nodes():
    first, second, third = text.parse_nodes(recorded("nodes.txt"))
    assert (first.name, first.state, first.flags) == ("node1", "allocated", ())
    assert first.shape == (2, 1, 1, 4000)
    assert (first.cpus, first.cpus_allocated, first.memory_allocated_mb) == (2, 2, 200)
    assert (first.features, first.partitions) == (("rig", "node1"), ("compute", "one"))
    assert second.partitions == ("compute",)
    assert (third.state, third.flags, third.usable) == ("idle", ("drain",), False)


@pytest.mark.parametrize(
    ("printed", "state", "flags", "usable"),
    [
        ("IDLE", "idle", (), True),
        ("DOWN*", "down", ("not_responding",), False),
        ("MIXED+PLANNED", "mixed", ("planned",), True),
        ("IDLE*+DRAIN", "idle", ("not_responding", "drain"), False),
        ("IDLE+CLOUD+POWERED_DOWN", "idle", ("cloud", "powered_down"), False),
    ],
)
def test_states_of_nodes(printed, state, flags, usable):
    line = recorded("nodes.txt").splitlines()[0].replace("State=ALLOCATED", f"State={printed}")
    (node,) = text.parse_nodes(line)
    assert (node.state, node.flags, node.usable) == (state, flags, usable)


def test_a_node_without_features():
    line = recorded("nodes.txt").splitlines()[0].replace("AvailableFeatures=rig,node1", "AvailableFeatures=(null)")
    assert text.parse_nodes(line)[0].features == ()


def test_partitions():
    compute, one = text.parse_partitions(recorded("partitions.txt"))
    assert compute == Partition("compute", "up", default=True, limit_seconds=3600, nodes=3)
    assert one == Partition("one", "up", default=False, limit_seconds=600, nodes=1)


def test_queue():
    waits, runs = text.parse_queue(recorded("queue.txt"))
    assert (waits.id, waits.state, waits.reason, waits.nodes) == ("6", "pending", "Resources", 2)
    assert waits.start > runs.start
    assert (runs.name, runs.state, runs.reason, runs.cpus) == ("runs", "running", None, 4)


def test_accounts_are_sums_and_maxima_over_steps():
    jobs = {job.id: job for job in text.parse_accounts(recorded("accounts.txt"))}
    assert list(jobs) == ["1", "2", "3", "4", "5", "6"]
    done = jobs["1"]
    assert (done.name, done.state, done.exit_code) == ("two words|and a bar", "completed", 0)
    assert (done.elapsed_seconds, done.cpu_seconds, done.max_rss_bytes) == (4, 2.937, 93068 * 1024)
    assert done.efficiency == pytest.approx(2.937 / 4)
    assert done.waited_seconds == 3
    assert (jobs["2"].state, jobs["2"].exit_code) == ("failed", 3)
    assert (jobs["3"].state, jobs["3"].signal) == ("failed", 9)
    assert jobs["4"].state == "cancelled"
    assert (jobs["5"].state, jobs["5"].nodes, jobs["5"].ended) == ("running", "node[1-2]", None)
    waiting = jobs["6"]
    assert (waiting.nodes, waiting.started, waiting.efficiency, waiting.waited_seconds) == ("", None, None, None)


def test_what_is_not_understood_is_shown():
    with pytest.raises(SlurmError, match="NodeName=broken"):
        text.parse_nodes("NodeName=broken State=IDLE")
    with pytest.raises(SlurmError, match="nonsense"):
        text.parse_queue("nonsense")
    with pytest.raises(SlurmError, match="COMPLETED"):
        text.parse_accounts("1|COMPLETED|0:0")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("01:00:00", 3600),
        ("7-00:00:00", 604800),
        ("00:02.937", 2.937),
        ("UNLIMITED", None),
        ("INVALID", None),
        ("30", 30),
    ],
)
def test_seconds(printed, expected):
    assert text.seconds(printed) == expected
