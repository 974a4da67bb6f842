"""Tables follow from records, in any order, and read back as they were written."""

import copy
import json

import factory
import numpy as np
import pandas as pd
import pytest

from streaming_attention.campaign import aggregate
from streaming_attention.campaign.record import RecordError, seal, write_record
from streaming_attention.campaign.statistics import median_interval
from streaming_attention.machine.layout import Layout


@pytest.fixture(scope="module")
def records():
    return factory.small_campaign()


@pytest.fixture(scope="module")
def tables(records):
    return aggregate.aggregate(records)


def test_there_is_a_row_for_every_sample_method_and_ceiling(records, tables):
    attention = [record for record in records if record["kind"] == "attention"]
    entries = [entry for record in attention for entry in record["methods"]]
    assert len(tables.measurements) == sum(len(entry["samples"]) for entry in entries)
    assert len(tables.summary) == len(entries)
    assert len(tables.ceilings) == sum(len(record.get("ceilings", ())) for record in records)
    assert set(tables.ceilings.loc[tables.ceilings["ranks"] > 1, "name"]) > {"read", "gemm_fp32", "shift_4MiB"}


def test_a_measurement_is_what_the_record_says(records, tables):
    record = next(record for record in records if record["kind"] == "attention" and record["repeat"] == 1)
    entry = record["methods"][2]
    rows = tables.measurements.query("record == @record['id'] and label == @entry['label']")
    assert rows["seconds"].tolist() == entry["samples"]
    assert rows["start"].tolist() == entry["starts"]
    assert rows["communication"].tolist() == entry["communication"]
    assert set(rows["record_digest"]) == {record["digest"]}
    assert set(rows["point"]) == {record["id"].removesuffix("-rep1")}
    assert json.loads(rows["options"].iloc[0]) == entry["options"]


def test_the_summary_holds_the_interval_of_the_samples_and_the_throughput(records, tables):
    record = next(record for record in records if record["kind"] == "attention")
    entry = record["methods"][0]
    row = tables.summary.query("record == @record['id'] and label == @entry['label']").iloc[0]
    assert (row["median"], row["low"], row["high"]) == tuple(median_interval(entry["samples"], 0.95))
    assert row["minimum"] == min(entry["samples"])
    assert row["gflops"] == pytest.approx(entry["flops"] / np.median(entry["samples"]) / 1e9)
    assert row["error_after"] == entry["error_after"]["relative_l2"]
    assert row["peak_bytes"] == entry["memory"]["peak_bytes"]


def test_a_method_that_did_not_pass_has_a_reason_and_no_numbers(tables):
    rows = tables.summary[tables.summary["status"] != "passed"]
    assert set(rows["status"]) == {"infeasible", "timeout"}
    assert (rows["reason"] != "").all() and (rows["n"] == 0).all()
    assert rows[["median", "low", "high", "minimum", "gflops", "gbs"]].isna().all(axis=None)
    assert not set(zip(rows["record"], rows["label"], strict=True)) & set(
        zip(tables.measurements["record"], tables.measurements["label"], strict=True)
    )


def test_outliers_are_flagged_and_kept():
    samples = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 9.0]
    entry = factory.entry("naive", factory.query(), Layout(), samples=samples)
    tables = aggregate.aggregate([factory.attention(factory.query(), Layout(), [entry])])
    assert tables.measurements["outlier"].tolist() == [False] * 6 + [True]
    assert tables.summary["n_outliers"].tolist() == [1]
    assert tables.summary["n"].tolist() == [7]


def test_the_order_of_records_does_not_matter(records, tmp_path):
    for name, some in (("forward", records), ("backward", records[::-1])):
        aggregate.write_tables(aggregate.aggregate(some), tmp_path / name)
    for name in aggregate.SCHEMAS:
        one, other = (tmp_path / folder / f"{name}.csv" for folder in ("forward", "backward"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("some", [factory.small_campaign, list], ids=["records", "no records"])
def test_tables_read_back_bit_for_bit(some, tmp_path):
    tables = aggregate.aggregate(some())
    aggregate.write_tables(tables, tmp_path)
    again = aggregate.read_tables(tmp_path)
    for name in aggregate.SCHEMAS:
        pd.testing.assert_frame_equal(getattr(tables, name), getattr(again, name), check_exact=True)


@pytest.mark.parametrize("name", ["NA", "None", "null", 'a "quoted", name', "π\n<b>"])
def test_text_that_looks_like_nothing_stays_text(name, tmp_path):
    entry = factory.entry("naive", factory.query(), Layout(), status="error", reason=name)
    tables = aggregate.aggregate([factory.attention(factory.query(), Layout(), [entry], campaign="x")])
    aggregate.write_tables(tables, tmp_path)
    assert aggregate.read_tables(tmp_path).summary["reason"].tolist() == [name]


def test_a_single_sample_has_an_unknown_interval(tmp_path):
    entry = factory.entry("naive", factory.query(), Layout(), samples=[2.0])
    aggregate.write_tables(aggregate.aggregate([factory.attention(factory.query(), Layout(), [entry])]), tmp_path)
    row = aggregate.read_tables(tmp_path).summary.iloc[0]
    assert (row["median"], row["low"], row["high"]) == (2.0, 0.0, np.inf)


def test_two_records_of_one_id_are_refused(records):
    with pytest.raises(ValueError, match=f"{records[5]['id']} occurs more than once"):
        aggregate.aggregate([*records, copy.deepcopy(records[5])])


def test_records_of_other_kinds_are_passed_over(records):
    tables = aggregate.aggregate([*records, factory.gate("naive"), factory.environment()])
    assert len(tables.summary) == len(aggregate.aggregate(records).summary)


def test_a_damaged_record_is_refused_by_name(records, tmp_path):
    path = tmp_path / "one.json"
    write_record(path, records[-1])
    path.write_text(path.read_text()[:-200])
    with pytest.raises(RecordError, match=r"one\.json"):
        aggregate.aggregate_files([path])


def test_a_table_without_its_columns_is_refused(tmp_path):
    (tmp_path / "measurements.csv").write_text("record,seconds\nx,1.0\n")
    with pytest.raises(ValueError, match=r"measurements\.csv: missing columns record_digest"):
        aggregate.read_csv(tmp_path / "measurements.csv", aggregate.MEASUREMENTS)


def test_hosts_and_processors_of_all_ranks_are_named():
    layout = Layout(nodes=2, sockets=2)
    entry = factory.entry("streaming", factory.query(), layout)
    record = factory.attention(factory.query(), layout, [entry])
    record["environment"]["ranks"][3]["cpu"] = "another"
    tables = aggregate.aggregate([seal(record)])
    assert set(tables.measurements["host"]) == {"n1 + n2"}
    assert set(tables.measurements["cpu"]) == {"AMD EPYC 9B45 + another"}
    assert set(tables.measurements["ranks"]) == {4}


def test_samples_and_facts_are_found_by_record_and_label(records, tables):
    attention = next(record for record in records if record["kind"] == "attention")
    ceilings = next(record for record in records if record["kind"] == "ceilings")
    entry, ceiling = attention["methods"][1], ceilings["ceilings"][3]
    assert tables.samples(attention["id"], entry["label"]).tolist() == entry["samples"]
    assert tables.samples(ceilings["id"], ceiling["name"]).tolist() == ceiling["samples"]
    assert tables.fact(attention["id"], entry["label"], "flops") == entry["flops"]
    with pytest.raises(KeyError):
        tables.samples(attention["id"], "no such method")
