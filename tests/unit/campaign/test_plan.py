"""Plans: a row for every point, sums that add up, and the published experiment in full."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from streaming_attention.campaign.config import load_config
from streaming_attention.campaign.plan import clock, make_plan
from streaming_attention.machine.topology import Machine

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "experiments" / "published.yaml"
CONFIG = """
campaign: trial
workloads: {prefill: {heads: 4, kv_heads: 2, causal: true}}
sweeps:
  all:
    workload: prefill
    keys: [64, 1024]
    layout: {ranks: [1, 2], threads: [1, 2]}
    methods: [naive, streaming: {block: [64, 128]}]
  more: {workload: prefill, keys: 64, methods: gemm}
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    return make_plan(load_config(tmp_path / "config.yaml", machine=Machine(cores_per_socket=2, memory_gib=8)))


@pytest.fixture(scope="module")
def published():
    return make_plan(load_config(PUBLISHED))


def rows_of(plan):
    return list(csv.DictReader(io.StringIO(plan.to_csv())))


def test_csv_has_a_row_for_every_point(plan):
    rows = rows_of(plan)
    assert [row["id"] for row in rows] == [point.id for point in (*plan.campaign.points, *plan.campaign.infeasible)]
    assert len(rows) == len({row["id"] for row in rows}) == 8
    first = rows[0]
    shape = [first[name] for name in ("workload", "heads", "kv_heads", "queries", "keys", "causal", "ranks", "threads")]
    assert shape == ["prefill", "4", "2", "64", "64", "True", "1", "1"]
    assert first["sweeps"] == "all; more"
    assert first["methods"] == "naive; gemm; streaming block=64; streaming block=128"


def test_what_cannot_run_stays_with_its_reason_and_costs_nothing(plan):
    by_status = {
        status: [row for row in rows_of(plan) if row["status"] == status] for status in ("planned", "infeasible")
    }
    assert len(by_status["planned"]) == 6
    for row in by_status["infeasible"]:
        assert (row["ranks"], row["threads"]) == ("2", "2") and row["feasible"] == ""
        assert row["infeasible"] == row["methods"] and "2 threads don't fit" in row["reasons"]
        assert float(row["predicted_seconds"]) == float(row["core_hours"]) == 0
    on_ranks = next(row for row in by_status["planned"] if row["ranks"] == "2")
    assert on_ranks["infeasible"] == "naive" and "naive: naive runs on one rank" in on_ranks["reasons"]


def test_every_call_over_ranks_is_predicted_with_its_strategy(plan):
    for row in rows_of(plan):
        calls = row["calls"].split("; ") if row["calls"] else []
        assert [call.split(": ")[0] for call in calls] == [label for label in row["feasible"].split("; ") if label]
        assert all(call.endswith(")") == (int(row["ranks"]) > 1) for call in calls)


def test_totals_add_up(plan):
    rows, totals = rows_of(plan), plan.totals()
    assert (totals.points, totals.infeasible_points) == (6, 2)
    assert totals.measurements == sum(len(row["feasible"].split("; ")) for row in rows if row["feasible"])
    assert totals.measurements + totals.infeasible_measurements == sum(len(row["methods"].split("; ")) for row in rows)
    assert totals.seconds == pytest.approx(sum(float(row["predicted_seconds"]) for row in rows))
    assert totals.node_hours == pytest.approx(totals.seconds / 3600)
    assert totals.core_hours == pytest.approx(2 * totals.seconds / 3600, rel=1e-3), "whole nodes of two cores"
    assert "6 points" in str(totals) and "2 points and" in str(totals)


def test_text_is_a_table_with_reasons_and_totals(plan):
    lines = plan.to_text().splitlines()
    header = next(line for line in lines if line.startswith("workload"))
    table = lines[lines.index(header) + 1 :][:8]
    assert all(line[header.index("keys") :].split()[0] in ("64", "1024") for line in table)
    assert sum("none can run" in line for line in table) == 2
    assert any("naive runs on one rank" in line for line in lines)
    assert str(plan.totals()) in plan.to_text()


def test_the_plan_is_the_same_every_time(plan, tmp_path):
    again = make_plan(load_config(tmp_path / "config.yaml", machine=plan.campaign.machine))
    assert again.to_csv() == plan.to_csv()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00 min"), (123.4, "2:03 min"), (3723, "1:02:03 h")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_published_experiment_is_whole(published):
    campaign = published.campaign
    assert str(campaign.machine) == "8 nodes x 2 sockets x 26 cores x 2 hardware threads, 192 GiB a node"
    assert campaign.infeasible == ()
    query = [point for point in campaign.points if point.workload.name == "query"]
    assert {(p.workload.queries, p.workload.heads, p.workload.head_dim) for p in query} == {(1, 1, 128)}
    for name in ("query", "prefill"):
        points = [point for point in campaign.points if point.workload.name == name]
        assert {p.workload.keys for p in points} == {2**power for power in range(10, 17)}
        assert {p.layout.threads for p in points if p.layout.ranks == 1} == {1, 2, 4, 8, 16, 26, 32, 52}
        hybrid = {(p.layout.ranks, p.layout.threads) for p in points}
        assert hybrid >= {(ranks, threads) for ranks in (1, 2, 4, 8, 16) for threads in (1, 2, 4, 8, 16, 26, 32)}
        assert {label for p in points for label in p.labels} >= {
            f"streaming_loops block={block}" for block in (64, 128, 256)
        }
    most = max(campaign.layouts, key=lambda layout: layout.ranks)
    assert (most.nodes, most.sockets, most.ranks_per_socket) == (8, 2, 1)


def test_published_prefill_is_the_document_s(published):
    prefill = next(p.workload for p in published.campaign.points if p.workload.name == "prefill")
    assert prefill.queries == prefill.keys and not prefill.causal and prefill.heads == 1


def test_planning_imports_nothing_heavy():
    """The Snakefile parses with these modules in every job; NumPy and Numba alone would take seconds."""
    program = (
        "import sys\n"
        "from streaming_attention.campaign.config import load_config\n"
        "from streaming_attention.campaign.plan import make_plan\n"
        "make_plan(load_config(sys.argv[1])).to_csv()\n"
        "print(sorted({'numpy', 'numba', 'pandas', 'mpi4py', 'matplotlib', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program, PUBLISHED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
