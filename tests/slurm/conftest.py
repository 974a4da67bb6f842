"""Clusters for the tests of this folder; where they can't be started the tests are skipped, except in CI."""

import pytest
from rig import Rig, missing


@pytest.fixture(scope="session")
def cluster():
    """Four virtual nodes of two sockets each, without accounting."""
    yield from _cluster(nodes=4)


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
