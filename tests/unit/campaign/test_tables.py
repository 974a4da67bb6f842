"""The best method, the machine and the status of all points, as rows and as pages."""

import re
from html.parser import HTMLParser

import factory
import pytest

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import aggregate, write_tables
from streaming_attention.campaign.files import write_json
from streaming_attention.campaign.folder import Folder, log_name
from streaming_attention.campaign.record import write_record
from streaming_attention.campaign.tables import TABLES, find_table, write_table
from streaming_attention.campaign.tables.best import best_methods
from streaming_attention.campaign.tables.machine import machine_card, ranges
from streaming_attention.campaign.tables.status import point_statuses, reasons
from streaming_attention.machine.layout import Layout
from streaming_attention.workload import Workload

ODD = "<script>alert('x')</script> & \"quotes\" $(rm -rf) `x` é\n:tag:"


GPU = [
    {"kernel": "prefill", "target": "sm_90", "status": "compiled", "kind": "cubin", "bytes": 9000, "seconds": 0.5},
    {"kernel": "prefill", "target": "gfx942", "status": "error", "reason": "out of <registers>"},
]


class Outline(HTMLParser):
    """Tags of a page and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A campaign's folder: a plan with one point more than there are records, records, tables."""
    folder = tmp_path_factory.mktemp("tables") / "workstation"
    records = factory.small_campaign()
    factory.write_campaign(folder, records)
    write_record(folder / "environment.json", factory.environment())
    unfinished = factory.attention(
        factory.query(2048), Layout(), [factory.entry("naive", factory.query(2048), Layout())]
    )
    factory.write_plan(folder / "plan.csv", factory.plan_of(records, [unfinished]))
    write_tables(aggregate(records), folder / "tables")
    write_json(folder / "gpu.json", {"schema": 1, "triton": "3.8.0", "kernels": GPU})
    return folder


def measured(**milliseconds) -> list[dict]:
    """One record of methods with the given times, nearly without noise."""
    methods = [
        factory.entry(name, factory.query(), Layout(), samples=[1e-3 * time * x for x in (1.0, 1.001, 0.999, 1.0)])
        for name, time in milliseconds.items()
    ]
    return [factory.attention(factory.query(), Layout(), methods)]


def test_the_fastest_method_wins_and_the_runner_up_is_another_method():
    records = measured(naive=9.0, gemm=3.0, streaming=2.0)
    slower = factory.entry("streaming", factory.query(), Layout(), options={"block": 64}, samples=[2.1e-3] * 4)
    records = [factory.attention(factory.query(), Layout(), [*records[0]["methods"], slower])]
    (row,) = best_methods(aggregate(records)).to_dict("records")
    assert (row["label"], row["runner_up"], row["class"]) == ("streaming", "gemm", "one worker")
    assert row["milliseconds"] == pytest.approx(2.0, rel=1e-2)
    assert row["ratio"] == pytest.approx(1.5, rel=1e-2) and bool(row["clear"])
    assert row["record"] == records[0]["id"] and row["record_digest"] == records[0]["digest"]


def test_a_difference_within_the_noise_is_not_clear():
    noise = [0.8, 1.2, 0.9, 1.1, 1.0]
    methods = [
        factory.entry("gemm", factory.query(), Layout(), samples=[1.01e-3 * x for x in noise]),
        factory.entry("streaming", factory.query(), Layout(), samples=[1e-3 * x for x in noise]),
    ]
    (row,) = best_methods(aggregate([factory.attention(factory.query(), Layout(), methods)])).to_dict("records")
    assert row["label"] == "streaming" and not bool(row["clear"])


def test_a_method_alone_in_its_records_has_no_runner_up():
    (row,) = best_methods(aggregate(measured(streaming=1.0))).to_dict("records")
    assert row["runner_up"] == "" and row["ratio"] != row["ratio"]


def test_there_is_a_best_for_every_length_and_class_of_layout():
    frame = best_methods(aggregate(factory.small_campaign()))
    assert len(frame) == 5 * 3
    assert set(frame["class"]) == {"one worker", "threads", "ranks"}
    assert set(frame.query("workload == 'query' and ranks == 2")["label"].str.split().str[0]) == {"streaming"}


def test_every_planned_point_and_method_has_a_status(campaign):
    frame = find_table("status").tabulate(Folder(campaign)).frame
    plan = Folder(campaign).plan()
    assert len(frame) == sum(len(row["methods"].split("; ")) for row in plan)
    assert set(frame["status"]) == {"passed", "infeasible", "timeout", "missing"}
    missing = frame.query("status == 'missing'")
    assert missing["keys"].tolist() == [2048] and missing["reason"].tolist() == ["no record yet"]
    assert (frame.query("status != 'passed'")["reason"] != "").all()
    assert (frame.query("status == 'passed'")["samples"] > 0).all()


def test_paths_of_the_status_lead_to_files_of_the_campaign(campaign):
    frame = find_table("status").tabulate(Folder(campaign)).frame.query("status != 'missing'")
    for path in (*frame["record"], *frame["log"]):
        assert (campaign / path).is_file()


def test_an_infeasible_point_without_a_record_keeps_its_reasons():
    entry = factory.entry("gemm", factory.query(), Layout(), status="infeasible", reason="too big; by far: 16 GiB")
    other = factory.entry("naive", factory.query(), Layout(), status="infeasible", reason="no gemm: here")
    plan = factory.plan_of([factory.attention(factory.query(), Layout(), [entry, other])])
    frame = point_statuses(plan, aggregate([]).summary)
    assert frame["status"].tolist() == ["infeasible"] * 2
    assert frame["reason"].tolist() == ["too big; by far: 16 GiB", "no gemm: here"]


@pytest.mark.parametrize(
    ("labels", "text", "expected"),
    [
        ("", "", {}),
        ("a", "a: x; y", {"a": "x; y"}),
        ("a; a b=1", "a: one; a b=1: two", {"a": "one", "a b=1": "two"}),
    ],
)
def test_reasons_are_told_apart(labels, text, expected):
    assert reasons({"infeasible": labels, "reasons": text}) == expected


def test_the_machine_card_says_what_a_job_saw(campaign):
    card = find_table("machine").tabulate(Folder(campaign)).frame.set_index(["topic", "item"])["value"]
    assert card["processor", "model"] == "AMD EPYC 9B45"
    assert card["software", "commit"] == factory.COMMIT
    assert card["variables removed for every job", "OPENBLAS_CORETYPE"] == "Haswell"
    assert card["machine", "cache L1 data"].startswith("48 KiB")
    assert "GB/s" in card["ceilings on 2 × 1 (ranks × threads)", "triad"]


def test_a_ceiling_that_failed_says_why():
    record = factory.ceilings(Layout())
    failed = {**record["ceilings"][0], "status": "incorrect", "reason": "wrong sum", "samples": []}
    tables = aggregate([factory.ceilings(Layout(), ceilings=[failed])])
    values = machine_card(factory.environment(), tables.ceilings)["value"].tolist()
    assert values[-1] == "incorrect: wrong sum"


def test_the_table_of_gpus_says_what_compiled_and_that_nothing_was_run(campaign):
    table = find_table("gpu").tabulate(Folder(campaign))
    assert table.frame["status"].tolist() == ["compiled", "error"]
    assert table.frame["reason"].tolist() == ["", "out of <registers>"]
    for words in ("Triton 3.8.0: 1 compiled, 1 error", "nothing here was run on a GPU"):
        assert words in " ".join(table.page.split())


@pytest.mark.parametrize(("cpus", "text"), [([], ""), ([3], "3"), ([0, 1, 2, 8], "0-2, 8"), ([5, 4, 1], "1, 4-5")])
def test_runs_of_cpus_are_written_as_ranges(cpus, text):
    assert ranges(cpus) == text


@pytest.mark.parametrize("name", TABLES)
def test_pages_stand_alone_and_the_rows_are_written_beside_them(name, campaign, tmp_path):
    table = find_table(name).tabulate(Folder(campaign))
    write_table(table, tmp_path / "x.csv", tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    outline = Outline(page)
    assert not {"script", "link", "img", "iframe"} & set(outline.tags)
    assert "http" not in page
    assert outline.tags.count("tr") >= len(table.frame)
    assert TABLES[name] in outline.words
    assert len((tmp_path / "x.csv").read_text().splitlines()) >= len(table.frame) + 1


@pytest.mark.parametrize("name", TABLES)
def test_the_same_campaign_gives_the_same_page(name, campaign):
    assert find_table(name).tabulate(Folder(campaign)).page == find_table(name).tabulate(Folder(campaign)).page


def test_odd_characters_are_text(tmp_path):
    workload = Workload(ODD, queries=1, keys=64)
    wrong = factory.entry("naive", workload, Layout(), status="error", reason=ODD)
    right = factory.entry("gemm", workload, Layout())
    record = factory.attention(workload, Layout(), [wrong, right], id="odd-rep0")
    factory.write_plan(tmp_path / "plan.csv", factory.plan_of([record]))
    write_tables(aggregate([record]), tmp_path / "tables")
    for name in ("best", "status"):
        outline = Outline(find_table(name).tabulate(Folder(tmp_path)).page)
        assert "script" not in outline.tags
        assert ODD in "".join(outline.words)


def test_nothing_measured_gives_empty_tables(tmp_path):
    write_tables(aggregate([]), tmp_path / "tables")
    for name in ("best", "status"):
        assert len(find_table(name).tabulate(Folder(tmp_path)).frame) == 0


def test_an_unknown_table_is_named_with_what_is_allowed():
    with pytest.raises(ValueError, match="table 'worst': unknown; allowed: best, prediction_errors"):
        find_table("worst")


def test_missing_numbers_leave_their_cells_empty():
    frame = best_methods(aggregate(measured(streaming=1.0)))
    assert re.search(r'<td class="number"></td>', html.table(frame, {"ratio": "ratio"}))


@pytest.mark.parametrize(("value", "text"), [(0.0123456, "0.0123"), (12345.6, "12346"), (1e-7, "1.00e-07"), (0, "0")])
def test_numbers_are_short(value, text):
    assert html.number(3)(value) == text


def test_records_that_left_the_plan_are_passed_over(tmp_path):
    records = factory.workstation(keys=(1024,), repeats=1)
    factory.write_campaign(tmp_path, records)
    kept = [record for record in records if record["kind"] == "attention" and record["layout"]["threads"] == 2]
    factory.write_plan(tmp_path / "plan.csv", factory.plan_of(kept))
    names = {path.stem for path in Folder(tmp_path).records()}
    assert names == {record["id"] for record in kept} | {Layout(threads=2).slug}


@pytest.mark.parametrize(
    ("path", "name"),
    [("results/x/logs/a/b.log", "logs/a/b.log"), ("results/logs/logs/a/b.log", "logs/a/b.log"), ("b.log", "b.log")],
)
def test_a_log_is_found_below_the_campaign(path, name):
    assert log_name(path) == name
