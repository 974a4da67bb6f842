"""What breaks while a campaign runs: no partial record counts, nothing hangs, and the next run finishes the rest."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from project import TINY, Project, changed

SLOW = {
    "campaign": "tiny",
    "protocol": {"warmup": 1, "min_sample_seconds": 0.2, "relative_half_width": 1e-9, "max_seconds": 4, "repeats": 1},
    "workloads": {"query": {"queries": 1, "head_dim": 32}},
    "sweeps": {"one": {"workload": "query", "keys": [64, 128], "layout": {"ranks": 1}, "methods": ["streaming"]}},
}
"""Two jobs that last long enough to be interrupted."""
SLOW_RANKS = changed(SLOW, sweeps__one__layout={"ranks": 2}, sweeps__one__keys=64)
RECORDS = ("--until", "measure_attention")
FIRST = "query-b1-h1x1-q1-k64-d32-full-fp32-n1s1r1t1-rep0"
PATIENCE = 120
"""Seconds after which something counts as hanging."""


def start(project: Project, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        project.command(*arguments),
        cwd=project.work,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(run: subprocess.Popen, *words: str, count: int = 1) -> list[psutil.Process]:
    """Descendants of a run whose command line has all the words and nothing of a shell, once there are enough."""
    parent, end = psutil.Process(run.pid), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = []
        for process in parent.children(recursive=True):
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            if "python" in os.path.basename(command[0] if command else "") and all(word in command for word in words):
                found.append(process)
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no process with {words}")


def finish(run: subprocess.Popen, code: int = 1) -> str:
    """Output of a run that must end by itself."""
    output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == code, output
    return output


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


def files(project: Project) -> set[str]:
    """Everything in the folder of records, hidden temporary files too."""
    return {path.name for path in (project.results / "records").iterdir()}


def test_a_job_killed_half_way_leaves_nothing_and_the_next_run_finishes(finished):
    project = finished.beside("killed job", SLOW)
    run = start(project, *RECORDS)
    (supervisor,) = wait_for(run, "streaming_attention", "measure")
    workers = wait_for(run, "streaming_attention.campaign.worker", "measure")
    supervisor.send_signal(signal.SIGKILL)
    finish(run)
    assert_gone(workers)
    done = project.records()
    assert len(done) == 1
    assert files(project) == {f"{name}.json" for name in done}
    due = project.due(*RECORDS)
    assert set(due) == {"measure_attention"}
    project.snakemake(*RECORDS)
    assert len(project.records()) == 2
    assert all(project.records()[name] == record for name, record in done.items())


def test_a_killed_run_can_be_taken_up_again(finished):
    """Snakemake itself dies, as in a power cut: its lock has to be removed by hand, which its message says."""
    project = finished.beside("killed run", SLOW)
    run = start(project, *RECORDS)
    workers = wait_for(run, "streaming_attention.campaign.worker", "measure")
    supervisors = wait_for(run, "streaming_attention", "measure")
    for process in [psutil.Process(run.pid), *supervisors]:
        process.send_signal(signal.SIGKILL)
    finish(run, -signal.SIGKILL)
    assert_gone(workers)
    assert "unlock" in project.snakemake(*RECORDS, check=False).stderr
    project.snakemake("--unlock")
    project.snakemake(*RECORDS)
    assert len(files(project)) == len(project.records()) == 2


def test_an_interrupted_run_ends_its_jobs(finished):
    project = finished.beside("interrupted", SLOW)
    run = start(project, *RECORDS)
    workers = wait_for(run, "streaming_attention.campaign.worker", "measure")
    run.send_signal(signal.SIGTERM)
    finish(run)
    assert_gone(workers)
    project.snakemake(*RECORDS)
    assert len(files(project)) == len(project.records()) == 2


def test_a_rank_that_dies_ends_the_job_and_the_next_run_measures_it(finished):
    project = finished.beside("dead rank", SLOW_RANKS)
    run = start(project, *RECORDS)
    ranks = wait_for(run, "streaming_attention.campaign.worker", "measure", count=2)
    time.sleep(1)
    ranks[-1].send_signal(signal.SIGKILL)
    assert "streaming-attention measure:" in finish(run)
    assert_gone(ranks)
    assert not (project.results / "records").exists() or files(project) == set()
    project.snakemake(*RECORDS)
    assert len(project.records()) == 1


def test_a_truncated_record_is_set_aside_and_measured_again(finished):
    project = finished.beside("truncated")
    record = project.results / "records" / f"{FIRST}.json"
    record.write_bytes(record.read_bytes()[:-2000])
    done = project.snakemake(check=False)
    assert done.returncode == 1
    assert f"{FIRST}.json" in done.stderr
    assert "set aside" in done.stderr
    assert project.due()["measure_attention"] == {f"point={FIRST}"}
    project.snakemake()
    assert [entry["status"] for entry in project.records()[FIRST]["methods"]] == ["passed"] * 3
    assert "every figure leads back" in project.snakemake("verify").stderr


@pytest.fixture
def tiny_disk(finished):
    """A working directory whose records lie on a disk of one page."""
    project = finished.beside("full disk", SLOW)
    disk = project.results / "records"
    disk.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)], capture_output=True)
    yield project if mounted.returncode == 0 else None
    if mounted.returncode == 0:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_full_disk_stops_the_job_and_the_next_run_finishes(finished, tiny_disk):
    if tiny_disk is None:
        assert_refused_by_a_file_size_limit(finished)
        return
    done = tiny_disk.snakemake(*RECORDS, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert files(tiny_disk) == set()
    subprocess.run(["umount", str(tiny_disk.results / "records")], check=True)
    tiny_disk.snakemake(*RECORDS)
    assert len(tiny_disk.records()) == 2


def assert_refused_by_a_file_size_limit(finished: Project) -> None:
    """Without the right to mount: no file may grow as large as a record."""
    record = finished.results / "records" / f"{FIRST}.json"
    output = finished.work / "repeated" / "record.json"
    done = subprocess.run(
        [sys.executable, "-m", "streaming_attention", "measure", "--from", str(record), "--output", str(output)],
        env=finished.environment | {"PYTHONPATH": str(finished.tree / "kernels")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert not [path for path in output.parent.iterdir() if path.suffix != ".log"]


WRONG = """

_right = prepare


def prepare(inputs, threads, comm, options):
    prepared = _right(inputs, threads, comm, options)
    prepared.stages.append((COMPUTE, lambda: np.multiply(prepared.output, 1.01, out=prepared.output)))
    return prepared
"""


def test_a_wrong_method_stops_at_the_gate_and_the_report_says_so(finished, tmp_path):
    sweep = {"workload": "query", "keys": 64, "layout": {"ranks": 1}, "methods": ["naive", "gemm"]}
    one_point = changed(TINY, sweeps__ranks=None, sweeps__threads=sweep)
    project = Project.create(tmp_path, one_point)
    kernel = project.tree / "kernels/streaming_attention/baselines/gemm.py"
    right = kernel.read_text()
    kernel.write_text(right + WRONG)
    project.snakemake("results/tiny/tables/status.html")
    gate = json.loads((project.results / "gate/gemm-fp32-threads.json").read_text())
    assert gate["status"] == "incorrect"
    (record,) = project.records().values()
    entries = {entry["method"]: entry for entry in record["methods"]}
    assert entries["naive"]["status"] == "passed"
    assert entries["gemm"]["status"] == "incorrect"
    assert entries["gemm"]["samples"] == []
    assert entries["gemm"]["reason"].startswith("stopped at the gate")
    page = (project.results / "tables/status.html").read_text()
    assert "incorrect" in page
    assert "stopped at the gate" in page
    kernel.write_text(right)
    project.snakemake("results/tiny/tables/status.html")
    (record,) = project.records().values()
    assert [entry["status"] for entry in record["methods"]] == ["passed", "passed"]
