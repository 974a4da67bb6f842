"""The supervisor is tried on launchers that fail in every way; each is a small script in place of ``mpiexec``."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from streaming_attention.campaign.launch import JobFailed, command_line, last_line, run_job
from streaming_attention.machine.layout import Layout

TWO_RANKS = Layout(ranks_per_socket=2)


@pytest.fixture
def job(tmp_path):
    return {
        "layout": TWO_RANKS.as_dict(),
        "output": str(tmp_path / "records" / "x.json"),
        "log": str(tmp_path / "logs" / "x.log"),
    }


@pytest.fixture
def launcher(tmp_path):
    def write(body):
        path = tmp_path / "launcher"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rsplit(")", 1)[1].split()[0] != "Z"


def ends(pid, seconds=10):
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_one_rank_needs_no_launcher_and_several_get_their_counts():
    worker = [sys.executable, "-m", "streaming_attention.campaign.worker", "measure", "job.json"]
    assert command_line("measure", "job.json", Layout(), "mpiexec -n {ranks}") == worker
    line = command_line("measure", "job.json", TWO_RANKS, "sh -N {nodes} -n {ranks} -p {ranks_per_node} -c {threads}")
    assert line[1:9] == ["-N", "1", "-n", "2", "-p", "2", "-c", "1"]
    assert line[9:] == worker


def test_the_error_of_the_failing_rank_is_the_message(job, launcher):
    script = launcher("echo 'rank 1: BindingError: ranks share cores: [[0], [0]]'; echo goodbye; exit 3")
    with pytest.raises(JobFailed, match=r"BindingError: ranks share cores.*exit code 3.*x\.log"):
        run_job("measure", job, script)
    assert not os.path.exists(job["output"])


def test_a_job_that_ends_well_without_a_record_has_failed(job, launcher):
    with pytest.raises(JobFailed, match="no valid record"):
        run_job("measure", job, launcher("exit 0"))


def test_a_half_written_record_does_not_count(job, launcher):
    script = launcher(f"echo '{{\"kind\": ' > {job['output']}")
    with pytest.raises(JobFailed, match="not a readable record"):
        run_job("measure", job, script)


def test_an_old_record_does_not_stand_in_for_a_failed_job(job, launcher):
    os.makedirs(os.path.dirname(job["output"]))
    with open(job["output"], "w") as stream:
        stream.write("from last time")
    with pytest.raises(JobFailed):
        run_job("measure", job, launcher("exit 1"))
    assert not os.path.exists(job["output"])


def test_the_time_limit_ends_the_whole_group(job, launcher, tmp_path):
    script = launcher(f"sleep 300 & echo $! > {tmp_path}/pid; wait")
    with pytest.raises(JobFailed, match="time limit of 1 s"):
        run_job("measure", job, script, limit=1)
    assert ends(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ending_the_supervisor_ends_its_launcher(job, launcher, tmp_path, number):
    script = launcher(f"echo $$ > {tmp_path}/pid; exec sleep 300")
    code = (
        "import json, sys; from streaming_attention.campaign.launch import run_job;"
        "run_job('measure', json.loads(sys.argv[1]), sys.argv[2])"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code, json.dumps(job), script])
    deadline = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline, "the launcher never started"
        time.sleep(0.05)
    supervisor.send_signal(number)
    assert supervisor.wait(20) != 0
    assert ends(int((tmp_path / "pid").read_text()))


def test_a_launcher_that_is_not_there_is_named(job):
    with pytest.raises(JobFailed, match="'no-such-launcher'"):
        run_job("measure", job, "no-such-launcher -n {ranks}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", "no output"), ("a\nb\n\n", "b"), ("TypeError: x\nAbort(1) on node 0\n", "TypeError: x")],
)
def test_the_line_that_says_what_went_wrong(tmp_path, text, expected):
    path = tmp_path / "log"
    path.write_text(text)
    assert last_line(path) == expected
