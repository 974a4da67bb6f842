"""Every figure, on campaigns of every kind: what it draws, what it says it draws, and where each number comes from."""

import json
import re
import xml.etree.ElementTree as ElementTree

import factory
import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D

from streaming_attention import models
from streaming_attention.campaign import published
from streaming_attention.campaign.aggregate import aggregate, read_csv
from streaming_attention.campaign.figures import FIGURES, find_figure, style
from streaming_attention.campaign.figures.data import SIDECAR, Options, representatives, summary_rows
from streaming_attention.campaign.figures.page import Page
from streaming_attention.campaign.figures.quantities import QUANTITIES, evaluate, workload_of
from streaming_attention.campaign.files import sha256_of
from streaming_attention.machine.layout import Layout
from streaming_attention.workload import Workload


def one_point() -> list[dict]:
    """A single layout, a single T, a single method, without ceilings."""
    workload = factory.query(4096)
    return [factory.attention(workload, Layout(), [factory.entry("streaming", workload, Layout())])]


def several_shapes() -> list[dict]:
    """A sweep over heads on one layout, beside the usual points."""
    records = factory.workstation(keys=(1024,), repeats=1)
    for kv_heads in (1, 2, 4):
        for causal in (True, False):
            workload = factory.prefill(1024, heads=4, kv_heads=kv_heads, causal=causal)
            methods = [factory.entry(name, workload, Layout(threads=2)) for name in ("gemm", "streaming")]
            records.append(factory.attention(workload, Layout(threads=2), methods))
    return records


def nothing_passed() -> list[dict]:
    methods = [factory.entry("naive", factory.query(), Layout(), status=status) for status in ("error", "timeout")]
    methods[1]["label"] = "naive again"
    return [factory.attention(factory.query(), Layout(), methods)]


def over_ranks() -> list[dict]:
    """Lengths that double with the ranks, so that weak scaling has something to show."""
    return factory.workstation(keys=(1024, 2048, 16384), repeats=1)


CAMPAIGNS = {
    "workstation": factory.small_campaign,
    "published experiment": factory.published_experiment,
    "one point": one_point,
    "several shapes": several_shapes,
    "over ranks": over_ranks,
    "nothing passed": nothing_passed,
    "no records": list,
}


@pytest.fixture(scope="module")
def campaigns():
    return {name: aggregate(make()) for name, make in CAMPAIGNS.items()}


@pytest.fixture(scope="module")
def drawings(campaigns):
    """Every figure of every campaign, drawn once."""
    options = Options()
    return {
        (figure, name): find_figure(figure).draw(tables, options)
        for figure in FIGURES
        for name, tables in campaigns.items()
    }


every = pytest.mark.parametrize(("figure", "name"), [(figure, name) for figure in FIGURES for name in CAMPAIGNS])
each_figure = pytest.mark.parametrize("figure", FIGURES)


@every
def test_every_row_says_what_it_shows_and_where_it_comes_from(figure, name, drawings):
    rows = drawings[figure, name].rows
    assert list(rows.columns) == list(SIDECAR)
    assert (
        rows.dtypes.astype(str).to_dict()
        == pd.DataFrame(columns=list(SIDECAR)).astype(SIDECAR).dtypes.astype(str).to_dict()
    )
    assert set(rows["quantity"]) <= set(QUANTITIES)
    assert set(rows["source"]) <= {"measured", "published", "model"}
    assert (rows["panel"] != "").all()
    for row in rows[rows["source"] != "model"].itertuples():
        assert row.record and row.record_digest
        assert row.source == "published" or len(row.record.split()) == len(row.record_digest.split())


@every
def test_every_number_follows_from_the_records_that_the_row_names(figure, name, drawings, campaigns):
    tables = campaigns[name]
    digests = dict(zip(tables.summary["record"], tables.summary["record_digest"], strict=True))
    digests |= dict(zip(tables.ceilings["record"], tables.ceilings["record_digest"], strict=True))
    for row in drawings[figure, name].rows.to_dict("records"):
        if row["source"] == "measured":
            sealed = [digests[record] for record in row["record"].split()]
            assert row["record_digest"].split() == sealed
        if not np.isnan(row["value"]):
            assert evaluate(tables, row).median == row["value"]
            assert np.isnan(row["low"]) or row["low"] <= row["value"] <= row["high"]


@every
def test_only_passed_methods_have_timings(figure, name, drawings):
    rows = drawings[figure, name].rows
    timings = [quantity for quantity, known in QUANTITIES.items() if known.timing]
    timed = rows[rows["quantity"].isin(timings) & rows["value"].notna()]
    assert set(timed.loc[timed["source"] == "measured", "status"]) <= {"passed"}


@each_figure
@pytest.mark.parametrize("name", ["workstation", "no records"])
def test_the_figure_is_an_image_and_the_sidecar_reads_back(figure, name, drawings, tmp_path):
    drawn = drawings[figure, name]
    style.save(drawn, tmp_path / "x.svg", tmp_path / "x.csv")
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    assert root.tag.endswith("svg") and float(root.get("width").removesuffix("pt")) > 400
    pd.testing.assert_frame_equal(read_csv(tmp_path / "x.csv", SIDECAR), drawn.rows, check_exact=True)
    assert sha256_of(tmp_path / "x.csv") in (tmp_path / "x.svg").read_text()


@each_figure
def test_the_same_rows_give_the_same_bytes(figure, campaigns, drawings):
    again = find_figure(figure).draw(campaigns["workstation"], Options())
    first = style.render(drawings[figure, "workstation"].figure)
    assert style.render(again.figure) == first
    assert b"<dc:date>" not in first
    pd.testing.assert_frame_equal(again.rows, drawings[figure, "workstation"].rows)


@each_figure
@pytest.mark.parametrize("name", ["nothing passed", "no records"])
def test_without_data_the_figure_says_so(figure, name, drawings):
    drawn = drawings[figure, name]
    words = [text.get_text() for axis in drawn.figure.axes for text in axis.texts]
    assert len(drawn.rows) == 0
    assert len(words) == 1 and re.match("no ", words[0])
    assert FIGURES[figure] in [text.get_text() for text in drawn.figure.texts]


@each_figure
def test_the_published_numbers_are_left_out_on_demand(figure, campaigns, drawings):
    bare = find_figure(figure).draw(campaigns["workstation"], Options(published=False))
    ours = drawings[figure, "workstation"].rows.query("source != 'published'").reset_index(drop=True)
    pd.testing.assert_frame_equal(bare.rows, ours)


OURS_ALONE = ("strong_scaling", "weak_scaling", "timeline", "predictions", "extrapolation", "memory", "correctness")
"""Figures of quantities that the published table doesn't have."""


@pytest.mark.parametrize("figure", [name for name in FIGURES if name not in OURS_ALONE])
def test_the_published_numbers_stand_beside_ours_and_are_marked(figure, drawings):
    drawn = drawings[figure, "workstation"]
    rows = drawn.rows.query("source == 'published'")
    assert len(rows) and rows["record"].str.startswith("published:").all()
    assert set(rows["record_digest"]) == {published.digest()}
    assert rows[["low", "high"]].isna().all(axis=None)
    legend = [text.get_text() for one in drawn.figure.legends for text in one.get_texts()]
    assert f"open markers: published, {published.HARDWARE}" in legend


@pytest.mark.parametrize("figure", ["runtime", "speedup", "threads_ranks", "scaling", "block", "bandwidth", "memory"])
@pytest.mark.parametrize("name", ["workstation", "published experiment", "several shapes"])
def test_the_sidecar_holds_exactly_what_is_drawn(figure, name, drawings):
    drawn = drawings[figure, name]
    points = [
        value
        for axis in drawn.figure.axes
        for line in axis.get_lines()
        if isinstance(line, Line2D) and line.get_marker() not in ("None", None, "", "x", "_", 2, 3)
        for value in line.get_ydata()
    ]
    rows = drawn.rows.query("source != 'model'").dropna(subset="value")
    assert set(points) == set(rows["value"])


@every
def test_points_lie_inside_the_axes_and_spread_over_them(figure, name, drawings):
    for axis in drawings[figure, name].figure.axes:
        points = [
            np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
            for line in axis.get_lines()
            if line.get_marker() in tuple("osD^vPX<>") and line.get_transform() == axis.transData
        ]
        if not points:
            continue
        points = np.concatenate(points)
        heights = axis.transAxes.inverted().transform(axis.transData.transform(points))
        assert (heights > -0.001).all() and (heights < 1.001).all()
        spread = points[:, 1].max() / points[:, 1].min()
        assert spread < 1.5 or np.ptp(heights[:, 1]) > 0.1


@each_figure
def test_axes_have_labels_with_units(figure, drawings):
    for axis in drawings[figure, "over ranks"].figure.axes:
        assert axis.get_xlabel() and axis.get_ylabel()
        unitless = ("speedup", "relative L2 error", "time relative", "rank")
        assert "(" in axis.get_ylabel() or axis.get_ylabel().startswith(unitless)


def test_series_differ_without_colour():
    marks = style.marks_of(["naive", "gemm", "streaming", "torch_sdpa", "one", "another", "third"])
    assert len({mark.marker for mark in marks.values()}) == len(marks)
    assert len({str(mark.line) for mark in marks.values()}) == len(marks)
    assert len({mark.color for mark in marks.values()}) == len(marks)


@each_figure
def test_odd_characters_are_drawn_as_they_are(figure):
    workload = Workload("a$<b>&\\frac{x", queries=1, keys=2048)
    layout = Layout()
    methods = [factory.entry(name, workload, layout) for name in ("naive", "streaming")]
    methods += [factory.entry("streaming", workload, layout, options={"block": 64})]
    methods[1]["label"] = "$\\alpha$ <script>"
    tables = aggregate([factory.attention(workload, layout, methods, id="odd-rep0"), factory.ceilings(layout)])
    root = ElementTree.fromstring(style.render(find_figure(figure).draw(tables, Options()).figure))
    assert not [node for node in root.iter() if node.tag.endswith("script")]


def test_a_speedup_is_taken_inside_each_record():
    """The second repeat ran on a machine half as fast; naive is 3 times slower than streaming in both."""
    records = []
    for repeat, pace in enumerate((1.0, 2.0)):
        methods = [
            factory.entry("naive", factory.query(), Layout(), samples=[3 * pace * x for x in (1.0, 1.01, 0.99)]),
            factory.entry("streaming", factory.query(), Layout(), samples=[pace * x for x in (1.0, 1.01, 0.99)]),
        ]
        records.append(factory.attention(factory.query(), Layout(), methods, repeat))
    (row,) = find_figure("speedup").draw(aggregate(records), Options(published=False)).rows.to_dict("records")
    assert (row["label"], row["reference"], row["value"]) == ("streaming", "naive", pytest.approx(3.0))
    assert row["record"] == row["reference_record"] and len(row["record"].split()) == 2
    assert row["high"] - row["low"] < 0.2


def test_without_the_wished_reference_the_speedup_is_over_what_most_records_hold():
    records = []
    for keys in (1024, 2048):
        methods = [factory.entry(name, factory.query(keys), Layout()) for name in ("gemm", "streaming")]
        records.append(factory.attention(factory.query(keys), Layout(), methods))
    rows = find_figure("speedup").draw(aggregate(records), Options(published=False)).rows
    assert set(rows["reference"]) == {"gemm"}
    assert rows["panel"].str.contains("over gemm").all()


def test_a_ratio_is_not_taken_between_records():
    """naive and streaming were measured at the same point, but never in one record."""
    records = [
        factory.attention(factory.query(), Layout(), [factory.entry(name, factory.query(), Layout())], repeat)
        for repeat, name in enumerate(("naive", "streaming"))
    ]
    assert len(find_figure("speedup").draw(aggregate(records), Options()).rows) == 0


def test_the_share_of_a_ceiling_is_bytes_over_time_over_rate():
    workload = factory.query(65536)
    entry = factory.entry("streaming", workload, Layout(), samples=[0.01, 0.01, 0.01])
    tables = aggregate([factory.attention(workload, Layout(), [entry]), factory.ceilings(Layout())])
    rows = find_figure("bandwidth").draw(tables, Options(published=False)).rows
    (share,) = rows.query("quantity == 'share'").to_dict("records")
    read = rows.query("quantity == 'bandwidth' and label == 'read'")["value"].iloc[0]
    assert share["value"] == pytest.approx(100 * models.bytes_moved(workload) / 0.01 / 1e9 / read, rel=1e-6)
    assert share["reference"] == "read" and share["reference_record"] == f"ceilings-{Layout().slug}"


def test_the_share_uses_the_ceiling_of_the_same_layout(drawings):
    rows = drawings["bandwidth", "workstation"].rows.query("quantity == 'share' and source == 'measured'")
    for row in rows.itertuples():
        layout = Layout(row.nodes, row.sockets, row.ranks_per_socket, row.threads, row.binding)
        assert row.reference_record == f"ceilings-{layout.slug}"


def test_roofline_points_have_the_exact_intensity(drawings):
    rows = drawings["roofline", "workstation"].rows.query("quantity == 'performance'")
    assert {"query", "prefill"} == set(rows["workload"])
    for row in rows.to_dict("records"):
        assert row["intensity"] == models.intensity(workload_of(row))


def test_the_roof_is_that_of_the_points_layout(drawings):
    rows = drawings["roofline", "workstation"].rows
    for _, some in rows.query("source == 'measured'").groupby(["ranks", "threads"]):
        assert {"bandwidth", "compute", "performance"} == set(some["quantity"])


def test_bf16_has_a_roof_of_its_own(drawings):
    assert "dot_bf16" not in set(drawings["roofline", "workstation"].rows["label"])
    workloads = [factory.prefill(), factory.prefill(dtype="bf16")]
    records = [factory.attention(one, Layout(), [factory.entry("streaming", one, Layout())]) for one in workloads]
    drawn = find_figure("roofline").draw(aggregate([*records, factory.ceilings(Layout())]), Options())
    flats = drawn.rows.query("quantity == 'compute'").set_index("label")["value"]
    assert set(flats.index) == {"gemm_fp32", "dot_bf16"}
    assert drawn.figure.axes[0].get_ylim()[1] > flats["dot_bf16"]
    assert {"fp32", "bf16"} <= set(drawn.rows["dtype"])


def test_memory_guides_are_exact_sizes(drawings):
    rows = drawings["memory", "workstation"].rows.query("source == 'model'")
    assert set(rows["quantity"]) == {"tensors", "scores"}
    for row in rows.query("quantity == 'tensors'").to_dict("records"):
        assert row["value"] == models.tensor_bytes(workload_of(row)) / 2**20
    square = rows.query("quantity == 'scores' and workload == 'prefill' and keys == 4096")
    assert square["value"].tolist() == [4 * 4096 * 4096 / 2**20]


def test_correctness_shows_the_worst_and_marks_what_is_incorrect():
    good = factory.entry("gemm", factory.query(), Layout())
    wrong = factory.entry("streaming", factory.query(), Layout(), status="incorrect")
    better = factory.entry("gemm", factory.query(), Layout(threads=2))
    better["error_before"] = {**better["error_before"], "relative_l2": 1e-9}
    records = [
        factory.attention(factory.query(), Layout(), [good, wrong]),
        factory.attention(factory.query(), Layout(threads=2), [better]),
    ]
    drawn = find_figure("correctness").draw(aggregate(records), Options())
    rows = drawn.rows.query("quantity == 'error_before'").set_index("label")
    assert rows.loc["gemm", "value"] == good["error_before"]["relative_l2"]
    assert rows.loc["gemm", "record"] == records[0]["id"]
    assert rows.loc["streaming", "status"] == "incorrect"
    assert "incorrect, not timed" in [text.get_text() for one in drawn.figure.legends for text in one.get_texts()]


def test_methods_without_a_time_are_shown_as_such(drawings):
    rows = drawings["runtime", "workstation"].rows
    absent = rows[rows["value"].isna()]
    assert {"naive", "gemm", "torch_sdpa"} == set(absent.query("ranks == 2")["method"])
    assert set(absent["status"]) == {"infeasible"}


def test_blocks_are_compared_with_the_published_one_inside_each_record(drawings):
    rows = drawings["block", "workstation"].rows
    ours = rows.query("source == 'measured'")
    assert set(ours["reference"]) == {"streaming block=128"}
    assert (ours.query("block == 128")[["value", "low", "high"]] == 1.0).all(axis=None)
    theirs = rows.query("source == 'published'").set_index("block")["value"]
    assert theirs.to_dict() == {64: pytest.approx(3.53 / 3.38), 128: 1.0, 256: pytest.approx(3.57 / 3.38)}


def test_threads_and_ranks_reach_the_same_number_of_workers(drawings):
    rows = drawings["threads_ranks", "published experiment"].rows.query("source == 'measured' and keys == 65536")
    reached = rows.assign(workers=rows["ranks"] * rows["threads"]).query("workers == 16")
    assert {(1, 16), (16, 1)} <= set(zip(reached["ranks"], reached["threads"], strict=True))
    assert not rows.duplicated(["ranks", "threads"]).any()


def test_the_wished_length_is_shown_where_it_was_measured(campaigns):
    rows = find_figure("runtime").draw(campaigns["workstation"], Options(keys=4096)).rows
    assert set(rows["keys"]) == {4096}
    rows = find_figure("runtime").draw(campaigns["workstation"], Options(keys=12345)).rows
    assert 12345 not in set(rows["keys"])


def test_of_several_variants_the_default_is_shown(campaigns):
    frame = representatives(summary_rows(campaigns["workstation"]))
    assert set(frame.loc[frame["method"] == "streaming", "label"]) == {"streaming block=128"}
    options = {json.loads(text).get("block") for text in frame["options"]}
    assert options == {None, 128}


def test_each_workload_has_its_own_variant_of_a_method():
    records = []
    for workload, options in ((factory.query(), {"block": 64}), (factory.prefill(), {})):
        methods = [factory.entry("gemm", workload, Layout())]
        methods += [factory.entry("streaming", workload, Layout(), options=options)]
        records.append(factory.attention(workload, Layout(), methods))
    rows = find_figure("runtime").draw(aggregate(records), Options(published=False)).rows
    assert set(rows["label"]) == {"gemm", "streaming", "streaming block=64"}


def test_shapes_of_one_layout_stand_together(drawings):
    rows = drawings["runtime", "several shapes"].rows
    together = rows[rows["panel"].str.contains("2 threads")]
    assert together.groupby("panel")["kv_heads"].agg(set).tolist() == [{1, 2, 4, 8}]
    assert len(drawings["runtime", "several shapes"].figure.axes) < 8


def test_lines_of_one_panel_share_rows():
    lines = ["a", "b", "c", "d", "efg", "hi"]
    page = Page.of_lines("title", "explanation", lines)
    page.finish()
    rows = [axis.get_subplotspec().rowspan.start for axis in page.axes]
    assert rows == [0, 0, 0, 1, 2, 2, 2, 3, 3]


def test_an_unknown_figure_is_named_with_what_is_allowed():
    with pytest.raises(ValueError, match="figure 'pie': unknown; allowed: runtime, speedup"):
        find_figure("pie")
