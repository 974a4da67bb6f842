"""Rules for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from project import Project

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # no test depends on how fast the machine is

NEVER_SKIPPED_IN_CI = [Path(__file__).parent / name for name in ("mpi", "report", "slurm", "workflow")]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What `make test` keeps in one process: the cluster's tests, those that share a finished campaign, else a file's.

    A cluster waits most of its time, so that the other tests run beside it.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item.path)))


def group_of(path: Path) -> str:
    file = path.relative_to(Path(__file__).parent)
    return {"slurm": "slurm", "report": "campaign", "workflow": "campaign"}.get(file.parts[0], str(file))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a test that starts ranks, a workflow, a cluster or a browser may not skip: there it has all it needs."""
    report = yield
    required = os.environ.get("CI") and any(parent in item.path.parents for parent in NEVER_SKIPPED_IN_CI)
    if required and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where it must run: {call.excinfo.value}"
    return report


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The tiny campaign in a folder with an odd name, measured once for all tests that read it or work on a copy."""
    project = Project.create(tmp_path_factory.mktemp("tiny") / "a user's $(touch pwned) & folder")
    project.snakemake()
    return project
