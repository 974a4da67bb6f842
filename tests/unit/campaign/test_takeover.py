"""The start of a campaign on a cluster, with a queue that is a script."""

import subprocess
import sys

import pytest

from streaming_attention.campaign.takeover import LOCK, Busy, hold, take_over
from streaming_attention.machine.slurm import SlurmError, leftovers


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A squeue that prints the file ``jobs`` and a scancel that empties it."""
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    for name, body in (("squeue", f"cat {jobs}"), ("scancel", f'echo "$@" > {jobs}.cancelled; : > {jobs}')):
        (commands / name).write_text(f"#!/bin/sh\n{body}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    jobs.touch()
    return jobs


def test_jobs_submitted_here_are_cancelled_and_others_are_not(tmp_path, queue):
    here = tmp_path / "here"
    here.mkdir()
    queue.write_text(f"11|{here}\n12|{tmp_path}\n13|{here}\n")
    lock, cancelled = take_over(here)
    lock.close()
    assert cancelled == ["11", "13"]
    assert queue.with_suffix(".cancelled").read_text() == "11 13\n"


def test_an_empty_queue_is_left_alone(tmp_path, queue):
    lock, cancelled = take_over(tmp_path)
    lock.close()
    assert cancelled == []
    assert not queue.with_suffix(".cancelled").exists()


def test_jobs_that_do_not_end_are_named(tmp_path, queue, monkeypatch):
    (tmp_path / "bin/scancel").write_text("#!/bin/sh\n")
    monkeypatch.setattr(leftovers, "PATIENCE_SECONDS", 0)
    queue.write_text(f"11|{tmp_path}\n")
    with pytest.raises(SlurmError, match="don't end: 11"):
        leftovers.cancel_jobs_of(tmp_path)


def test_a_second_run_is_told_who_is_there(tmp_path):
    with hold(tmp_path / LOCK), pytest.raises(Busy, match=r"another run is at work here: process \d+ on "):
        hold(tmp_path / LOCK)


def test_a_killed_process_frees_its_lock(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from streaming_attention.campaign.takeover import LOCK, hold
lock = hold(Path({str(tmp_path)!r}) / LOCK)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    hold(tmp_path / LOCK).close()
