"""A campaign on a cluster from its plan to a verified report, and many points at once."""

import csv
from collections import Counter

import pytest
from campaigns import POINT, config, resources

from streaming_attention.campaign.record import load_record

EVERY_LAYOUT = {
    "ranks": {"layout": {"nodes": [1, 2, 4], "sockets": [1, 2], "threads": 1}},
    "threads": {"layout": {"nodes": [1, 2], "sockets": 1, "threads": 2, "binding": "none"}},
}


def test_every_layout_to_a_verified_report(project):
    project.configure(config(**EVERY_LAYOUT) | {"machine": "slurm"})
    text = project.snakemake("--report-after-run", "--report", "results/report.html", timeout=550).stdout
    assert "8 points with 8 measurements" in text
    records = {record["id"]: record for record in map(load_record, sorted(project.results.glob("records/*.json")))}
    assert len(records) == 8
    for record in records.values():
        assert [entry["status"] for entry in record["methods"]] == ["passed"]
        assert_ranks_are_where_they_should_be(record)
    assert len({record["environment"]["ranks"][0]["slurm_job_id"] for record in records.values()}) == 8
    assert (project.work / "results/report.html").stat().st_size > 10_000
    project.snakemake("verify")
    assert project.due() == {}
    assert_jobs_are_accounted_for(project, records)


def assert_ranks_are_where_they_should_be(record):
    layout, ranks = record["layout"], record["environment"]["ranks"]
    on_each = layout["sockets"] * layout["ranks_per_socket"]
    hosts = Counter(rank["host"] for rank in ranks)
    assert len(hosts) == layout["nodes"]
    assert set(hosts.values()) == {on_each}
    masks = [(rank["host"], cpu) for rank in ranks for cpu in rank["mask"]]
    assert len(set(masks)) == len(masks) == layout["nodes"] * on_each * layout["threads"]
    assert all(rank["slurm_step_id"] == "0" for rank in ranks)
    assert all(variables == str(layout["threads"]) for variables in thread_counts(record))


def thread_counts(record) -> list[str]:
    settled = record["environment"]["variables"]["set"]
    return [value for name, value in settled.items() if name.endswith("NUM_THREADS")]


def assert_jobs_are_accounted_for(project, records):
    with open(project.results / "tables/jobs.csv", newline="") as stream:
        rows = {row["record"]: row for row in csv.DictReader(stream)}
    for identifier, record in records.items():
        row = rows[identifier]
        ranks = record["environment"]["ranks"]
        assert row["slurm_job_id"] == ranks[0]["slurm_job_id"]
        assert row["hosts"] == " ".join(dict.fromkeys(rank["host"] for rank in ranks))
        assert (project.results / row["slurm_log"]).is_file()


def test_mpiexec_finds_the_nodes_of_its_job(project):
    """Launched otherwise than by srun, as with a site's own MPI."""
    two_nodes = POINT.format(layout="n2s1r1t1")
    project.configure(config(apart={"layout": {"nodes": 2, "sockets": 1, "threads": 1}}))
    project.snakemake(*resources("mpiexec -n {ranks} -ppn {ranks_per_node}"), "--", two_nodes)
    ranks = load_record(project.work / two_nodes)["environment"]["ranks"]
    assert len({rank["host"] for rank in ranks}) == 2
    assert all(len(rank["mask"]) == 1 for rank in ranks)


def test_a_budget_stops_a_campaign_before_anything_is_submitted(project):
    project.configure(config() | {"budget": {"node_hours": 0.0001}})
    done = project.snakemake(check=False)
    assert done.returncode != 0
    assert "budget.node_hours: is 0.0001, but the plan needs" in done.stdout
    assert project.rig.jobs() == {}


def test_added_points_are_all_that_runs(project):
    first = POINT.format(layout="n1s2r1t1")
    project.snakemake("--", first)
    before = (project.work / first).read_text()
    more = config(ranks={"layout": {"ranks": [1, 2], "threads": 1}}, apart={"layout": {"nodes": 2, "threads": 1}})
    project.configure(more)
    assert project.due("--until", "measure_attention")["measure_attention"] == {
        "point=query-b1-h1x1-q1-k128-d32-full-fp32-n1s1r1t1-rep0",
        "point=query-b1-h1x1-q1-k128-d32-full-fp32-n2s2r1t1-rep0",
    }
    project.snakemake("--until", "measure_attention")
    assert (project.work / first).read_text() == before
    assert len(list(project.results.glob("records/*.json"))) == 3
    assert project.rig.jobs() == {}


def test_jobs_go_to_the_kind_of_node_that_the_config_names(project):
    project.configure(config() | {"machine": {"partition": "compute", "constraint": "node3"}})
    one_core = POINT.format(layout="n1s1r1t1")
    project.snakemake("--", one_core)
    record = load_record(project.work / one_core)
    assert [rank["host"] for rank in record["environment"]["ranks"]] == ["node3"]


def test_threads_and_hybrids_on_nodes_of_two_cores_a_socket(judged, wide_cluster, tmp_path):
    project = judged.copy(tmp_path)
    project.rig = wide_cluster
    layouts = {"nodes": [1, 2], "sockets": 1, "ranks_per_socket": [1, 2], "threads": "powers"}
    project.configure(config(hybrid={"layout": layouts}) | {"machine": "slurm"})
    project.snakemake("--until", "measure_attention")
    records = {path.stem.split("-")[-2]: load_record(path) for path in project.results.glob("records/*.json")}
    assert set(records) == {"n1s1r1t1", "n1s1r1t2", "n1s1r2t1", "n2s1r1t1", "n2s1r1t2", "n2s1r2t1"}
    for record in records.values():
        assert_ranks_are_where_they_should_be(record)


@pytest.mark.long
def test_a_hundred_points_and_none_is_lost(judged, tmp_path):
    project = judged.copy(tmp_path)
    project.rig = judged.rig
    lengths = [64 + 8 * step for step in range(50)]
    project.configure(config(many={"keys": lengths, "layout": {"ranks": [1, 2], "threads": 1}}))
    project.snakemake("--until", "measure_attention", timeout=3000)
    records = [load_record(path) for path in sorted(project.results.glob("records/*.json"))]
    assert len(records) == 100
    assert {entry["status"] for record in records for entry in record["methods"]} == {"passed"}
    assert len({record["environment"]["ranks"][0]["slurm_job_id"] for record in records}) == 100
    assert project.rig.jobs() == {}
