"""JSON of SLURM's commands over several releases; see recorded/README.md for which of it was recorded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from streaming_attention.machine.slurm import structured, text
from streaming_attention.machine.slurm.commands import SlurmError

RECORDED = Path(__file__).parent / "recorded"
NEWER = ("23.02", "23.11", "24.11")


def recorded(release: str, name: str) -> str:
    return (RECORDED / release / name).read_text()


def test_nodes_are_the_same_as_in_text():
    assert structured.parse_nodes(recorded("22.05", "nodes.json")) == text.parse_nodes(recorded("22.05", "nodes.txt"))


def test_the_queue_is_the_same_as_in_text():
    ours = {job.id: job for job in structured.parse_queue(recorded("22.05", "queue.json"))}
    assert set(ours) == {"5", "6"}, "the finished job that 22.05 lists is left out"
    for job in text.parse_queue(recorded("22.05", "queue.txt")):
        assert replace(ours[job.id], start=None) == replace(job, start=None)


def test_accounts_are_the_same_as_in_text():
    theirs = {job.id: job for job in text.parse_accounts(recorded("22.05", "accounts.txt"))}
    ours = structured.parse_accounts(recorded("22.05", "accounts.json"))
    assert [job.id for job in ours] == ["1", "3", "4", "6"]
    for job in ours:
        expected = theirs[job.id]
        assert (job.state, job.nodes, job.elapsed_seconds) == (expected.state, expected.nodes, expected.elapsed_seconds)
        assert job.max_rss_bytes == expected.max_rss_bytes
        assert job.cpu_seconds == pytest.approx(expected.cpu_seconds, abs=0.001)


@pytest.mark.parametrize("release", NEWER)
def test_nodes_of_newer_releases(release):
    nodes = structured.parse_nodes(recorded(release, "nodes.json"))
    assert [(node.name, node.state, node.flags, node.usable) for node in nodes] == [
        ("c001", "allocated", (), True),
        ("c002", "mixed", ("planned",), True),
        ("c003", "idle", ("drain",), False),
        ("c004", "down", ("not_responding",), False),
    ]
    assert nodes[0].shape == (2, 24, 2, 384000)
    assert (nodes[0].features, nodes[3].features) == (("icelake", "ib"), ())


@pytest.mark.parametrize("release", NEWER)
def test_queue_of_newer_releases(release):
    jobs = structured.parse_queue(recorded(release, "queue.json"))
    assert [(job.state, job.reason, job.start) for job in jobs] == [
        ("running", None, 1730001000),
        ("pending", "Resources", 1730005000),
        ("pending", "Priority", None),
    ]
    assert (jobs[0].nodes, jobs[0].cpus, jobs[0].user) == (2, 192, "ada")


@pytest.mark.parametrize("release", NEWER)
def test_accounts_of_newer_releases(release):
    done, failed, killed = structured.parse_accounts(recorded(release, "accounts.json"))
    assert (done.state, done.exit_code, done.cpus, done.nodes) == ("completed", 0, 96, "c[001-002]")
    assert done.efficiency == pytest.approx(4800.5 / 9600)
    assert done.max_rss_bytes == 2 * 2**30
    assert (failed.state, failed.exit_code) == ("failed", 1)
    assert (killed.state, killed.signal) == ("out_of_memory", 9)


def test_only_the_chosen_jobs():
    assert [job.id for job in structured.parse_accounts(recorded("24.11", "accounts.json"), {"32"})] == ["32"]


@pytest.mark.parametrize("broken", ["", "slurm_load_jobs error", "[]", json.dumps({"nodes": [{"name": "c001"}]})])
def test_what_is_not_understood_is_an_error(broken):
    with pytest.raises(SlurmError, match="not understood"):
        structured.parse_nodes(broken)
