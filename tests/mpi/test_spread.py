"""Attention over MPI ranks, started as a user would, under the mpiexec of the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from streaming_attention.workload import Workload

pytest.importorskip("mpi4py")
HERE = Path(__file__).parent
MPIEXEC = Path(sys.executable).with_name("mpiexec")
QUERY = Workload("query", heads=4, kv_heads=2, keys=5000, head_dim=64)
WORKLOADS = {
    "one query": QUERY,
    "causal prefill": Workload("prefill", 2, 6, 2, 65, 129, 59, causal=True),
    "more queries than keys": Workload("prefill", 1, 2, 1, 40, 9, 32, causal=True),
    "two keys": replace(QUERY, keys=2),
    "one key": replace(QUERY, keys=1),
    "many rows": Workload("prefill", 1, 4, 4, 600, 70, 16),
}


def run_ranks(ranks: int, *words: str) -> subprocess.CompletedProcess:
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "mpi4py", *words]
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.fixture(scope="module", params=[(1, 1), (2, 1), (3, 1), (4, 1), (2, 2)], ids=lambda p: f"{p[0]} ranks x {p[1]}")
def results(request, tmp_path_factory):
    """What rank 0 reports of every workload, by its name."""
    ranks, threads = request.param
    report = tmp_path_factory.mktemp("ranks") / "report.json"
    workloads = json.dumps([workload.as_dict() for workload in WORKLOADS.values()])
    done = run_ranks(ranks, str(HERE / "attend_over_ranks.py"), str(report), str(threads), workloads)
    assert done.returncode == 0, done.stderr
    return dict(zip(WORKLOADS, json.loads(report.read_text()), strict=True))


@pytest.mark.parametrize("name", WORKLOADS)
def test_agrees_with_the_oracle_before_and_after_a_refill(results, name):
    for verdict in results[name]["verdicts"]:
        assert verdict["out"]["passed"], verdict
        assert verdict["lse"]["passed"], verdict
        assert verdict["empty_rows_right"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_second_call_gives_the_same_bits(results, name):
    assert len(set(results[name]["bits"])) == 1


@pytest.mark.parametrize("name", WORKLOADS)
def test_slices_cover_the_keys(results, name):
    slices = results[name]["slices"]
    assert sum(slices) == WORKLOADS[name].keys
    assert max(slices) - min(slices) <= 1


def test_stages_are_named(results):
    for result in results.values():
        first, *others = result["stages"]
        assert first == ["compute", "communication", "compute"]
        assert all(stages == ["compute", "communication"] for stages in others)
        assert result["kernel"] == "streaming.loops, K/V spread over ranks"


def test_bits_of_a_layout_do_not_depend_on_threads_or_the_run(tmp_path):
    bits = []
    for run, threads in enumerate((1, 1, 2)):
        report = tmp_path / f"{run}.json"
        workloads = json.dumps([WORKLOADS["causal prefill"].as_dict(), QUERY.as_dict()])
        done = run_ranks(3, str(HERE / "attend_over_ranks.py"), str(report), str(threads), workloads)
        assert done.returncode == 0, done.stderr
        bits.append([result["bits"] for result in json.loads(report.read_text())])
    assert bits[0] == bits[1] == bits[2]


def test_a_rank_that_raises_ends_all_with_its_error():
    done = run_ranks(3, str(HERE / "raise_on_one_rank.py"))
    assert done.returncode != 0
    assert "the last rank has had enough" in done.stderr
