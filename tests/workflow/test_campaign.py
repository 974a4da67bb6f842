"""A small campaign from end to end, and what holds of every campaign's rules."""

import csv
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from project import PARTS, ROOT, TINY

MEASURING = {"compile_method", "validate_method", "measure_ceilings", "measure_attention"}


def metadata(project) -> list[dict]:
    """What Snakemake remembers of its jobs, an entry per output."""
    return [
        json.loads(path.read_text()) for path in (project.work / ".snakemake/metadata").rglob("*") if path.is_file()
    ]


def test_every_planned_point_has_a_record_with_passed_methods(finished):
    with (finished.results / "plan.csv").open() as stream:
        planned = {row["id"]: row for row in csv.DictReader(stream)}
    records = finished.records()
    assert set(records) == set(planned)
    for name, record in records.items():
        assert [entry["status"] for entry in record["methods"]] == ["passed"] * len(record["methods"])
        assert "; ".join(entry["label"] for entry in record["methods"]) == planned[name]["methods"]


def test_the_layouts_were_those_asked_for(finished):
    ran = {(len(record["environment"]["ranks"]), record["layout"]["threads"]) for record in finished.records().values()}
    assert ran == {(1, 1), (1, 2), (2, 1)}


def test_every_log_that_a_record_names_is_there(finished):
    for record in finished.records().values():
        assert (finished.work / record["log"]).stat().st_size > 0


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.due() == {}


def test_every_figure_leads_back_to_its_records(finished):
    assert "every figure leads back" in finished.snakemake("verify").stderr


def test_the_plan_is_printed_before_anything_runs(finished):
    fresh = finished.beside("only the plan", TINY)
    text = fresh.snakemake("plan").stdout
    assert "query" in text
    assert "9 points with 25 measurements" in text


def test_measurements_never_overlap(finished):
    """Two jobs at once would share caches, cores and memory bandwidth, and time each other."""
    spans = sorted((job["starttime"], job["endtime"]) for job in metadata(finished) if job["rule"] in MEASURING)
    assert len(spans) == 3 + 4 + 3 + 9
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_everything_lands_in_the_working_directory(finished):
    assert {path.name for path in finished.tree.iterdir()} == {Path(part).parts[0] for part in PARTS}
    assert {path.name for path in finished.work.iterdir()} == {".snakemake", "config.yaml", "results"}


def test_the_published_experiment_plans_on_any_machine(finished):
    done = finished.snakemake("--dry-run", "--configfile", str(ROOT / "experiments/published.yaml"))
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert int(jobs["measure_attention"]) > 400
    assert int(jobs["measure_ceilings"]) > 30


def test_the_workflow_is_in_style():
    done = subprocess.run([sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    formatter = Path(sys.executable).parent / "snakefmt"
    done = subprocess.run([formatter, "--check", "Snakefile", "workflow"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
