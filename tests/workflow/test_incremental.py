"""What has to run again after a change, and that nothing else does."""

import pytest

from project import TINY, Project, changed
from streaming_attention.campaign.figures import FIGURES

TABLES = {
    "tabulate_best",
    "tabulate_extrapolated",
    "tabulate_gpu",
    "tabulate_jobs",
    "tabulate_machine",
    "tabulate_prediction_errors",
    "tabulate_status",
}
RESULTS = {"aggregate_records", *TABLES, "trace_provenance", "all"}
SERIAL = "query-b1-h1x1-q1-k64-d32-full-fp32-n1s1r1t1-rep0"


@pytest.fixture(scope="module")
def edited(finished, tmp_path_factory) -> Project:
    """A copy whose files may be edited; every test puts them back."""
    return finished.copy(tmp_path_factory.mktemp("edited"))


@pytest.fixture
def edit(edited):
    """``edit("kernels/...", text)`` appends to a file of the checkout until the test ends."""
    before = {}

    def append(name: str, text: str) -> None:
        path = edited.tree / name
        before.setdefault(path, path.read_text())
        path.write_text(path.read_text() + text)

    yield append
    for path, text in before.items():
        path.write_text(text)


def points(due: dict[str, set[str]]) -> set[str]:
    return {wildcards.removeprefix("point=") for wildcards in due.get("measure_attention", ())}


def test_a_new_length_runs_the_new_points_and_draws_again(finished):
    project = finished.beside("longer")
    before = {path: path.read_bytes() for path in project.results.glob("records/*.json")}
    gates = {path: path.stat().st_mtime_ns for path in project.results.glob("*/*-fp32*.json")}
    project.configure(changed(TINY, sweeps__threads__keys=[64, 128, 192]))
    due = project.due()
    assert len(points(due)) == 4
    assert all("k192" in point for point in points(due))
    drawn = {rule for rule in due if rule.startswith("draw_")}
    assert drawn == {f"draw_{figure}" for figure in FIGURES}
    assert set(due) == {"plan_campaign", "measure_attention"} | RESULTS | drawn
    project.snakemake()
    assert len(project.records()) == len(before) + 4
    assert all(path.read_bytes() == content for path, content in before.items())
    assert all(path.stat().st_mtime_ns == time for path, time in gates.items())
    assert project.due() == {}
    assert "every figure leads back" in project.snakemake("verify").stderr


def test_another_repeat_runs_only_the_repeats(finished):
    project = finished.beside("repeated")
    project.configure(changed(TINY, protocol__repeats=2))
    due = project.due()
    assert len(points(due)) == 9
    assert all(point.endswith("-rep1") for point in points(due))


def test_a_new_option_runs_the_points_that_ask_for_it(finished):
    project = finished.beside("optional")
    project.configure(changed(TINY, sweeps__ranks__methods=["streaming", {"streaming": {"block": 64}}]))
    due = project.due()
    assert points(due) == {"query-b1-h1x1-q1-k128-d32-full-fp32-n1s1r2t1-rep0"}
    assert not {"compile_method", "validate_method", "measure_ceilings"} & set(due)


def test_another_title_measures_and_draws_nothing(finished):
    project = finished.beside("renamed")
    project.configure(changed(TINY, report__title="Another title"))
    assert project.due() == {}


def test_a_touched_kernel_runs_nothing(edited):
    (edited.tree / "kernels/streaming_attention/baselines/naive.py").touch()
    assert edited.due() == {}


def test_an_edited_kernel_runs_its_points(edited, edit):
    edit("kernels/streaming_attention/baselines/naive.py", "\n# edited\n")
    due = edited.due()
    assert len(points(due)) == 8
    assert not any("n1s1r2t1" in point for point in points(due))
    assert due["compile_method"] == {"method=naive, dtype=fp32"}
    assert due["validate_method"] == {"method=naive, dtype=fp32, mode=threads"}
    assert "measure_ceilings" not in due


def test_an_edited_file_that_several_kernels_share_runs_all_of_theirs(edited, edit):
    edit("kernels/streaming_attention/prepared.py", "\n# edited\n")
    assert len(points(edited.due())) == 9


def test_an_edited_figure_is_drawn_again_alone(edited, edit):
    edit("kernels/streaming_attention/campaign/figures/block.py", "\n# edited\n")
    assert set(edited.due()) == {"draw_block", "trace_provenance", "all"}


def test_a_deleted_record_is_measured_again(finished):
    project = finished.beside("deleted")
    (project.results / f"records/{SERIAL}.json").unlink()
    assert points(project.due()) == {SERIAL}


def test_a_deleted_figure_is_drawn_again(finished):
    project = finished.beside("undrawn")
    (project.results / "figures/block.svg").unlink()
    assert set(project.due()) == {"draw_block", "trace_provenance", "all"}
