"""Figure -> sidecar -> records -> log: each link is broken once, and the walk must say which."""

import copy
import json
import shutil

import factory
import pytest

from streaming_attention.campaign import provenance
from streaming_attention.campaign.aggregate import aggregate_files, read_csv, read_tables, write_csv, write_tables
from streaming_attention.campaign.figures import FIGURES, find_figure, style
from streaming_attention.campaign.figures.data import SIDECAR, Options
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.record import load_record, write_record


def finish(folder) -> None:
    """Tables, figures and provenance of the records in a folder."""
    write_tables(aggregate_files(Folder(folder).records()), folder / "tables")
    tables = read_tables(folder / "tables")
    for name in FIGURES:
        style.save(
            find_figure(name).draw(tables, Options()), folder / f"figures/{name}.svg", folder / f"figures/{name}.csv"
        )
    provenance.write_trace(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("provenance") / "workstation"
    records = factory.workstation(keys=(1024, 65536), repeats=1)
    factory.write_campaign(folder, records + factory.gates_of(records))
    factory.write_plan(folder / "plan.csv", factory.plan_of(records))
    finish(folder)
    return folder


@pytest.fixture
def campaign(finished, tmp_path):
    """A copy to break."""
    return shutil.copytree(finished, tmp_path / "workstation")


def record_of(campaign, pattern="query*rep0.json"):
    return sorted((campaign / "records").glob(pattern))[0]


def change_record(path, change) -> dict:
    """Change a record and seal it again, as someone who knows how would."""
    record = load_record(path)
    change(record)
    return write_record(path, record)


def change_sidecar(campaign, figure, column, value, where="quantity == quantity") -> None:
    """Change one cell of a sidecar, and write the provenance anew so that the digests agree."""
    path = campaign / f"figures/{figure}.csv"
    rows = read_csv(path, SIDECAR)
    rows.loc[rows.query(where).index[0], column] = value
    write_csv(rows, path)
    trace = json.loads((campaign / provenance.NAME).read_text())
    trace["figures"][figure]["csv_digest"] = provenance.sha256_of(path)
    (campaign / provenance.NAME).write_text(json.dumps(trace))


def complaints(campaign, *words) -> list[str]:
    """Problems that hold all the words; there must be some."""
    problems = provenance.verify(campaign)
    found = [problem for problem in problems if all(word in problem for word in words)]
    assert found, problems
    return found


def test_an_untouched_campaign_has_no_problem(finished):
    assert provenance.verify(finished) == []


def test_repeats_are_pooled_and_computed_again(tmp_path):
    records = [record for record in factory.workstation(keys=(1024,), repeats=2) if record["layout"]["threads"] == 1]
    factory.write_campaign(tmp_path, records + factory.gates_of(records))
    finish(tmp_path)
    assert provenance.verify(tmp_path) == []
    change_sidecar(tmp_path, "runtime", "low", 1e-6, "source == 'measured'")
    complaints(tmp_path, "figures/runtime.csv: line 2: low 1e-06 differs from")


def test_it_holds_wherever_the_folder_is_moved_to(campaign):
    assert provenance.verify(campaign) == []


def test_the_trace_names_every_figure_record_and_log(finished):
    trace = json.loads((finished / provenance.NAME).read_text())
    assert list(trace["figures"]) == list(FIGURES)
    assert set(trace["records"]) == {path.relative_to(finished).as_posix() for path in Folder(finished).records()}
    assert trace["figures"]["runtime"]["rule"] == "draw_runtime"
    one = trace["records"][f"records/{record_of(finished).name}"]
    assert one["commit"] == factory.COMMIT and (finished / one["log"]).is_file()
    assert set(trace["tables"]) == {"tables/measurements.csv", "tables/summary.csv", "tables/ceilings.csv"}
    assert one["id"] in trace["figures"]["scaling"]["records"]


def test_tracing_twice_gives_the_same(finished, tmp_path):
    provenance.write_trace(finished, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (finished / provenance.NAME).read_bytes()


@pytest.mark.parametrize("kind", ["svg", "csv"])
def test_a_missing_figure_or_sidecar(campaign, kind):
    (campaign / f"figures/scaling.{kind}").unlink()
    complaints(campaign, f"figures/scaling.{kind} is missing")


@pytest.mark.parametrize("kind", ["svg", "csv"])
def test_a_changed_figure_or_sidecar(campaign, kind):
    path = campaign / f"figures/scaling.{kind}"
    path.write_text(path.read_text() + "\n")
    complaints(campaign, f"figures/scaling.{kind} has changed")


def test_a_figure_beside_a_sidecar_that_is_not_its_own(campaign):
    """The sidecar loses a row and the provenance is written anew: every digest agrees, the figure shows more."""
    path = campaign / "figures/runtime.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    provenance.write_trace(campaign)
    assert complaints(campaign) == ["figures/runtime.svg: was not drawn from the sidecar beside it"]


def test_a_record_that_was_edited(campaign):
    path = record_of(campaign)
    path.write_text(path.read_text().replace('"seconds": 12.3', '"seconds": 1.23'))
    complaints(campaign, path.name, "does not match the content")
    complaints(campaign, "figures/", path.stem, "does not exist or can't be trusted")


def test_a_truncated_record(campaign):
    path = record_of(campaign)
    path.write_bytes(path.read_bytes()[:500])
    complaints(campaign, path.name, "not a readable record")


def test_a_record_that_was_edited_and_sealed_again(campaign):
    path = record_of(campaign)
    change_record(path, lambda record: record["methods"][0]["samples"].__setitem__(0, 1e-9))
    complaints(campaign, f"records/{path.name}: digest", "is not the", provenance.NAME)
    complaints(campaign, "tables/measurements.csv", path.stem, "differs from the record")
    complaints(campaign, "figures/", path.stem, "the row says")


def test_a_record_that_is_gone(campaign):
    path = record_of(campaign)
    path.unlink()
    complaints(campaign, path.name, "not among the campaign's records")
    complaints(campaign, "tables/summary.csv", path.stem, "in the table but not on disk")
    complaints(campaign, "figures/", "line", path.stem, "does not exist")


def test_a_record_that_came_later(campaign):
    path = record_of(campaign)
    later = copy.deepcopy(load_record(path))
    later["id"], later["log"] = (later[key].replace("-rep0", "-rep7") for key in ("id", "log"))
    factory.write_campaign(campaign, [later])
    (campaign / "plan.csv").unlink()
    complaints(campaign, later["id"], "not in provenance.json")
    complaints(campaign, f"tables/measurements.csv: record {later['id']} is not in the table")


def test_a_record_outside_the_plan_is_no_part_of_the_campaign(campaign):
    later = copy.deepcopy(load_record(record_of(campaign)))
    later["id"], later["log"] = (later[key].replace("-rep0", "-rep7") for key in ("id", "log"))
    factory.write_campaign(campaign, [later])
    assert provenance.verify(campaign) == []


def test_a_missing_log(campaign):
    record = load_record(record_of(campaign))
    Folder(campaign).log(record).unlink()
    complaints(campaign, f"log of records/{record['id']}.json", "is missing")


def test_a_changed_log(campaign):
    record = load_record(record_of(campaign))
    Folder(campaign).log(record).write_text("all went well\n")
    complaints(campaign, f"log of records/{record['id']}.json", "has changed")


@pytest.mark.parametrize("column", ["value", "low", "high"])
def test_a_number_that_does_not_follow_from_the_record(campaign, column):
    change_sidecar(campaign, "scaling", column, 123.456, "source == 'measured'")
    (found,) = complaints(campaign, "figures/scaling.csv: line", "differs from")
    assert f"{column} 123.456 differs from" in found


@pytest.mark.parametrize(
    ("figure", "where"),
    [
        ("runtime", "source == 'published'"),
        ("speedup", "source == 'measured'"),
        ("threads_ranks", "source == 'measured'"),
        ("block", "source == 'measured' and block == 64"),
        ("bandwidth", "quantity == 'bandwidth' and source == 'measured'"),
        ("bandwidth", "quantity == 'share' and source == 'measured'"),
        ("bandwidth", "quantity == 'share' and source == 'published'"),
        ("roofline", "quantity == 'performance'"),
        ("roofline", "quantity == 'compute'"),
        ("memory", "quantity == 'peak_memory'"),
        ("memory", "source == 'model'"),
        ("correctness", "quantity == 'error_after'"),
        ("correctness", "quantity == 'limit_before'"),
    ],
)
def test_every_kind_of_number_is_computed_again(campaign, figure, where):
    change_sidecar(campaign, figure, "value", 0.123456, where)
    complaints(campaign, f"figures/{figure}.csv: line", "value 0.123456 differs from")


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("record", "no-such-record-rep0", "record no-such-record-rep0 does not exist"),
        ("record", "published:2", "source measured does not fit the record published:2"),
        ("record", "", "a measured value without a record"),
        ("record_digest", "sha256:" + "0" * 64, "the row says"),
        ("label", "torch_sdpa", "method streaming is not the torch_sdpa of record"),
        ("label", "no such method", "holds no 'no such method'"),
        ("quantity", "beauty", "unknown quantity 'beauty'"),
        ("source", "guessed", "source 'guessed' is not measured"),
        ("keys", 2048, "keys 2048 is not the"),
        ("threads", 9, "threads 9 is not the"),
        ("status", "error", "status error is not the passed of record"),
    ],
)
def test_a_row_that_speaks_of_something_else(campaign, column, value, complaint):
    where = "source == 'measured' and label == 'streaming block=128' and ranks == 1 and value == value"
    change_sidecar(campaign, "runtime", column, value, where)
    complaints(campaign, "figures/runtime.csv: line", complaint)


def test_a_ratio_between_two_records(campaign):
    rows = read_csv(campaign / "figures/speedup.csv", SIDECAR).query("source == 'measured'")
    other = rows.loc[rows["record"] != rows["record"].iloc[0], "record"].iloc[0]
    change_sidecar(campaign, "speedup", "reference_record", other, "source == 'measured'")
    complaints(campaign, "figures/speedup.csv: line 2: a ratio between records")


def test_a_ceiling_of_another_layout(campaign):
    path = campaign / "figures/bandwidth.csv"
    rows = read_csv(path, SIDECAR)
    shares = rows.query("quantity == 'share' and source == 'measured'")
    rows.loc[shares.index, ["reference_record", "reference_digest"]] = shares[
        ["reference_record", "reference_digest"]
    ].to_numpy()[::-1]
    write_csv(rows, path)
    complaints(campaign, "figures/bandwidth.csv: line", "of record ceilings-")


def test_a_published_number_that_is_not(campaign):
    change_sidecar(campaign, "runtime", "record", "published:9999", "source == 'published'")
    complaints(campaign, "figures/runtime.csv: line", "published:9999 is not in the published data")


def test_a_timing_of_a_method_that_did_not_pass(campaign):
    """The record is replaced by one in which the method turned out incorrect; figures and tables stay."""
    path = record_of(campaign)

    def fail(record):
        entry = record["methods"][0]
        entry.update(status="incorrect", reason="made wrong", converged=None, calls_per_sample=None)
        entry.update(samples=[], starts=[], compute=[], communication=[])

    change_record(path, fail)
    complaints(campaign, "figures/", "a timing of naive in record", path.stem, "whose status is incorrect")


def test_a_table_that_lost_a_record(campaign):
    path, name = campaign / "tables/summary.csv", record_of(campaign).stem
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith(name)))
    complaints(campaign, "tables/summary.csv has changed")
    complaints(campaign, f"tables/summary.csv: record {name} is not in the table")


def test_a_table_with_another_number(campaign):
    path = campaign / "tables/measurements.csv"
    lines = path.read_text().splitlines(True)
    cells = lines[5].split(",")
    seconds = lines[0].strip().split(",").index("compute") - len(lines[0].strip().split(","))
    cells[seconds] = "0.5"
    lines[5] = ",".join(cells)
    path.write_text("".join(lines))
    provenance.write_trace(campaign)
    complaints(campaign, "tables/measurements.csv: row", "compute differs from the record")


def test_a_table_that_is_gone(campaign):
    (campaign / "tables/ceilings.csv").unlink()
    complaints(campaign, "tables/ceilings.csv is missing")
    complaints(campaign, "tables/ceilings.csv: can't be read")


@pytest.mark.parametrize("status", ["incorrect", "error"])
def test_a_gate_that_was_not_passed(campaign, status):
    factory.write_campaign(campaign, [factory.gate("gemm", status=status)])
    assert complaints(campaign, "gate/") == [f"gate/gemm-fp32-threads.json: {status}, but gemm has timings in fp32"]


def test_a_gate_that_is_missing_or_damaged(campaign):
    (campaign / "gate/naive-fp32-threads.json").unlink()
    (campaign / "gate/streaming-fp32-ranks.json").write_text("{}")
    complaints(campaign, "gate/naive-fp32-threads.json: missing")
    complaints(campaign, "gate/streaming-fp32-ranks.json: damaged")


def test_a_gate_of_a_method_without_timings_may_fail(campaign):
    factory.write_campaign(campaign, [factory.gate("another", status="incorrect")])
    assert provenance.verify(campaign) == []


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_no_provenance(campaign, content):
    path = campaign / provenance.NAME
    path.unlink() if content is None else path.write_text(content)
    complaints(campaign, f"{provenance.NAME}: can't be read")


def test_a_campaign_that_measured_nothing(tmp_path):
    records = [factory.attention(factory.query(), factory.Layout(), [
        factory.entry("naive", factory.query(), factory.Layout(), status="error")
    ])]  # fmt: skip
    factory.write_campaign(tmp_path, records)
    finish(tmp_path)
    assert provenance.verify(tmp_path) == []


def test_tracing_refuses_what_it_can_not_trust(campaign):
    record_of(campaign).write_text("{}")
    with pytest.raises(ValueError, match="record"):
        provenance.trace(campaign)
