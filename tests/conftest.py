"""Rules for all tests."""

import os
from pathlib import Path

import pytest

NEVER_SKIPPED_IN_CI = [Path(__file__).parent / name for name in ("mpi", "report", "slurm", "workflow")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a test that starts ranks, a workflow, a cluster or a browser may not skip: the machine has what it needs."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        if any(parent in item.path.parents for parent in NEVER_SKIPPED_IN_CI):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where it must run: {call.excinfo.value}"
    return report
