"""Attention over MPI ranks, started as a user would, under the mpiexec of the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from streaming_attention.distributed.strategies import STRATEGIES
from streaming_attention.workload import Workload

pytest.importorskip("mpi4py")
HERE = Path(__file__).parent
MPIEXEC = Path(sys.executable).with_name("mpiexec")
QUERY = Workload("query", heads=4, kv_heads=2, keys=5000, head_dim=64)
WORKLOADS = {
    "one query": QUERY,
    "causal prefill": Workload("prefill", 2, 6, 2, 65, 129, 59, causal=True),
    "square, causal": Workload("prefill", 1, 4, 1, 203, 203, 16, causal=True),
    "more queries than keys": Workload("prefill", 1, 2, 1, 40, 9, 32, causal=True),
    "fewer heads than ranks": Workload("prefill", 2, 2, 2, 50, 61, 16),
    "heads that don't share out evenly": Workload("prefill", 1, 10, 2, 37, 37, 16, causal=True),
    "two keys": replace(QUERY, keys=2),
    "one key": replace(QUERY, keys=1),
    "many rows": Workload("prefill", 1, 4, 4, 600, 70, 16),
}
WAYS = {
    "streaming": [
        {},
        *({"strategy": strategy} for strategy in STRATEGIES),
        *({"strategy": strategy, "overlap": "off"} for strategy in ("allgather", "ring", "zigzag", "pass_q")),
    ],
    "streaming_loops": [{}],
}


def run_ranks(ranks: int, *words: str) -> subprocess.CompletedProcess:
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "mpi4py", *words]
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def attend(folder: Path, method: str, ranks: int, threads: int, workloads, ways) -> list[list[dict]]:
    """What rank 0 reports, by workload and by way."""
    report = folder / f"{method}-{ranks}-{threads}.json"
    shapes = json.dumps([workload.as_dict() for workload in workloads])
    words = str(report), method, str(threads), shapes, json.dumps(ways)
    done = run_ranks(ranks, str(HERE / "attend_over_ranks.py"), *words)
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text())


@pytest.fixture(scope="module", params=["streaming", "streaming_loops"])
def method(request):
    return request.param


@pytest.fixture(scope="module", params=[(1, 1), (2, 1), (3, 1), (4, 1), (2, 2)], ids=lambda p: f"{p[0]} ranks x {p[1]}")
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def results(layout, method, tmp_path_factory):
    """Reports by workload, one for each way."""
    found = attend(tmp_path_factory.mktemp("ranks"), method, *layout, WORKLOADS.values(), WAYS[method])
    return dict(zip(WORKLOADS, found, strict=True))


@pytest.mark.parametrize("name", WORKLOADS)
def test_agrees_with_the_oracle_before_and_after_a_refill(results, method, name):
    for way, result in zip(WAYS[method], results[name], strict=True):
        for verdict in result["verdicts"]:
            assert verdict["out"]["passed"], (way, verdict)
            assert verdict["lse"]["passed"], (way, verdict)
            assert verdict["empty_rows_right"], way


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_bits_again_and_with_a_slow_rank(results, method, name):
    for way, result in zip(WAYS[method], results[name], strict=True):
        assert len(set(result["bits"])) == 1, way


def test_overlap_changes_no_bits_of_what_travels_in_the_same_order(results, method):
    ways = WAYS[method]
    for way in ways:
        if way.get("strategy") in ("ring", "zigzag", "pass_q") and "overlap" in way:
            other = ways.index({"strategy": way["strategy"]})
            for name in WORKLOADS:
                assert results[name][ways.index(way)]["bits"] == results[name][other]["bits"], (way, name)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_rank_holds_its_share_and_no_more(results, layout, method, name):
    workload, ranks = WORKLOADS[name], layout[0]
    for way, result in zip(WAYS[method], results[name], strict=True):
        queries, keys = zip(*result["held"], strict=True)
        assert sum(keys) == workload.keys
        assert max(keys) <= -(-workload.keys // ranks) + 1, way
        if way.get("strategy") not in (None, "spread"):
            assert sum(queries) == workload.queries
            assert list(queries) == result["rows"], way


def test_stages_have_kinds_and_labels_and_the_kernel_says_what_ran(results, layout, method):
    kernels = {"streaming": ("streaming.decode", "streaming.prefill"), "streaming_loops": ("streaming.loops",)}
    for reports in results.values():
        for way, result in zip(WAYS[method], reports, strict=True):
            assert set().union(*result["kinds"]) <= {"compute", "communication"}
            assert result["labelled"]
            kernel, strategy, ranks = result["kernel"].split(", ")
            assert ranks == f"{layout[0]} ranks"
            if way:
                assert strategy == {"zigzag": "ring (zigzag)"}.get(way["strategy"], way["strategy"])
            assert kernel.startswith((*kernels[method], "nothing to compute"))


def test_bits_of_a_layout_do_not_depend_on_threads_or_the_run(tmp_path, method):
    workloads, bits = [WORKLOADS["causal prefill"], QUERY], []
    ways = [way for way in WAYS[method] if way or method != "streaming"]  # threads may decide what "auto" is
    for run, threads in enumerate((1, 1, 2)):
        folder = tmp_path / str(run)
        folder.mkdir()
        found = attend(folder, method, 3, threads, workloads, ways)
        bits.append([[result["bits"] for result in reports] for reports in found])
    assert bits[0] == bits[1] == bits[2]


def test_sixteen_bits_travel_and_agree_with_the_oracle(tmp_path):
    sizes = QUERY, WORKLOADS["causal prefill"], WORKLOADS["heads that don't share out evenly"]
    workloads = [replace(workload, dtype=dtype) for dtype in ("bf16", "fp16") for workload in sizes]
    for workload, reports in zip(
        workloads, attend(tmp_path, "streaming", 3, 1, workloads, WAYS["streaming"]), strict=True
    ):
        for way, result in zip(WAYS["streaming"], reports, strict=True):
            for verdict in result["verdicts"]:
                assert verdict["out"]["passed"], (workload, way, verdict)
                assert verdict["lse"]["passed"], (workload, way, verdict)
                assert verdict["empty_rows_right"], (workload, way)
            assert len(set(result["bits"])) == 1, (workload, way)
            assert result["dtypes"] == [workload.dtype] * 3, way


@pytest.mark.parametrize("strategy", ["spread", "ring", "heads"])
def test_a_rank_that_raises_ends_all_with_its_error(strategy):
    done = run_ranks(3, str(HERE / "raise_on_one_rank.py"), strategy)
    assert done.returncode != 0
    assert "the last rank has had enough" in done.stderr
