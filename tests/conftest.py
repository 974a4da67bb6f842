"""Rules for all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from project import Project

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # no test depends on how fast the machine is

NEVER_SKIPPED_IN_CI = [Path(__file__).parent / name for name in ("mpi", "report", "slurm", "workflow")]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What `make test` keeps in one process: the cluster's tests, those that share a finished campaign, else a file's.

    A cluster waits most of its time, so that the other tests run beside it. (xdist's own ``loadgroup`` writes a suffix
    to ids that pytest from 9.2 on doesn't read.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.split("::")[0])

    return Groups(config, log)


def group_of(file: str) -> str:
    """``file`` is a path from the root, ``tests/...``."""
    part = Path(file).parts[1]
    return {"slurm": "slurm", "report": "campaign", "workflow": "campaign"}.get(part, file)


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
