"""Answers of pyslurm. No pyslurm fits every SLURM, so a stand-in has the attributes that its releases document."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from streaming_attention.machine.slurm import library
from streaming_attention.machine.slurm.commands import SlurmError
from streaming_attention.machine.slurm.model import Account, Node, Partition, QueuedJob

NODE = {
    "name": "c1",
    "state": "IDLE+DRAIN",
    "sockets": 2,
    "cores_per_socket": 24,
    "threads_per_core": 1,
    "total_cpus": 48,
    "available_features": ["ib"],
    "partitions": ["standard"],
}
OLDER = {
    "real_memory_raw": 190000,
    "real_memory": "185.55G",
    "alloc_memory_raw": 0,
    "alloc_memory": "0M",
    "alloc_cpus": 0,
}
NEWER = {"real_memory": 190000, "allocated_memory": 0, "allocated_cpus": 0}
JOB = {"id": 7, "name": "point", "user_name": "ada", "partition": "standard", "num_nodes": 2, "cpus": 96}


@pytest.fixture
def pyslurm(monkeypatch):
    """A module of that name whose collections are filled by the test."""
    module = ModuleType("pyslurm")
    monkeypatch.setitem(sys.modules, "pyslurm", module)

    def fill(name, *entries, namespace=module, form=list):
        things = [SimpleNamespace(**entry) for entry in entries]
        collection = things if form is list else {thing.name: thing for thing in things}
        setattr(namespace, name, SimpleNamespace(load=lambda *_: collection))

    module.fill = fill
    fill("Nodes")
    return module


@pytest.mark.parametrize("names", [OLDER, NEWER], ids=["older", "newer"])
@pytest.mark.parametrize("form", [list, dict])
def test_nodes(pyslurm, names, form):
    pyslurm.fill("Nodes", NODE | names, form=form)
    expected = Node("c1", "idle", ("drain",), 2, 24, 1, 48, 0, 190000, 0, ("ib",), ("standard",))
    assert library.nodes() == [expected]


@pytest.mark.parametrize(("limit", "seconds"), [(60, 3600), ("UNLIMITED", None), (None, None)])
def test_partitions(pyslurm, limit, seconds):
    entry = {"name": "standard", "state": "UP", "is_default": True, "max_time_limit": limit, "total_nodes": 4}
    pyslurm.fill("Partitions", entry)
    assert library.partitions() == [Partition("standard", "up", True, seconds, 4)]


def test_queue_has_what_waits_or_runs(pyslurm):
    running = JOB | {"state": "RUNNING", "state_reason": "None", "start_time": 1730001000}
    pyslurm.fill("Jobs", running, JOB | {"state": "COMPLETED"})
    assert library.queue() == [QueuedJob("7", "point", "ada", "running", "standard", 2, 96, None, 1730001000)]


def test_accounts(pyslurm):
    pyslurm.db = SimpleNamespace(JobFilter=lambda ids: ids)
    entry = JOB | {
        "state": "COMPLETED",
        "exit_code": 0,
        "exit_code_signal": None,
        "elapsed_time": 100,
        "stats": SimpleNamespace(total_cpu_time=4800, max_resident_memory=2**30),
        "nodelist": "c[1-2]",
        "submit_time": 1730000900,
        "start_time": 1730001000,
        "end_time": 1730001100,
    }
    pyslurm.fill("Jobs", entry, namespace=pyslurm.db)
    (account,) = library.accounts(["7"])
    assert account == Account(
        "7", "point", "completed", 0, 0, 100, 4800.0, 96, 2**30, "c[1-2]", 1730000900, 1730001000, 1730001100
    )
    assert account.efficiency == 0.5


def test_no_jobs_are_not_asked_for(pyslurm):
    assert library.accounts([]) == []


def test_a_pyslurm_of_old_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyslurm", ModuleType("pyslurm"))
    with pytest.raises(SlurmError, match="too old"):
        library.load()


def test_none_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyslurm", None)
    with pytest.raises(SlurmError, match="pyslurm"):
        library.load()
