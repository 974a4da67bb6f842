"""Clusters for the tests of this folder; where they can't be started the tests are skipped, except in CI."""

import pytest
from campaigns import ClusterProject, config
from rig import Rig, missing


@pytest.fixture(scope="session")
def cluster():
    """Four virtual nodes of two sockets each, without accounting."""
    yield from _cluster(nodes=4)


@pytest.fixture(scope="module")
def wide_cluster():
    """Two virtual nodes of one socket with two cores."""
    yield from _cluster(nodes=2, sockets=1, cores=2)


@pytest.fixture(scope="module")
def accounted_cluster():
    """Two virtual nodes of two sockets each, with slurmdbd and its database."""
    yield from _cluster(nodes=2, accounting=True)


def _cluster(**shape):
    reason = missing(shape.get("accounting", False))
    if reason:
        pytest.skip(f"no SLURM cluster for tests here: {reason}")
    with Rig(**shape) as rig:
        yield rig


@pytest.fixture(scope="session")
def judged(cluster, tmp_path_factory):
    """A campaign of one point whose method is compiled and has passed the gate; the point is left to be measured."""
    project = ClusterProject.create(
        tmp_path_factory.mktemp("judged"), config(ranks={"layout": {"ranks": [1, 2], "threads": 1}})
    )
    project.rig = cluster
    project.snakemake("--until", "validate_method")
    return project


@pytest.fixture
def project(judged, tmp_path, cluster):
    """A copy of that campaign; whatever a test leaves in the queue is cancelled, and all nodes come back."""
    copy = judged.copy(tmp_path)
    copy.rig = cluster
    yield copy
    cluster.run("scancel", "--user=root")
    for name, state in cluster.states().items():
        if state.startswith("down"):
            cluster.power_on(name)
        if state.startswith("drain"):
            cluster.run("scontrol", "update", f"nodename={name}", "state=resume")
    cluster.wait(lambda: cluster.states() == dict.fromkeys(cluster.names, "idle"), "all nodes idle")
