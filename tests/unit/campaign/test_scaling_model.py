"""The scaling model: nominal in a plan, calibrated by a campaign, and held against points that it has not seen."""

import json
from dataclasses import replace

import factory
import numpy as np
import pytest

from streaming_attention import models
from streaming_attention.campaign.aggregate import aggregate
from streaming_attention.campaign.scaling import extrapolation, published_shape
from streaming_attention.campaign.scaling.nominal import call_cost, call_seconds
from streaming_attention.campaign.scaling.prediction import GEMM, LONG, READ, SHORT, ScalingModel
from streaming_attention.campaign.tables.extrapolated import extrapolate
from streaming_attention.campaign.tables.prediction_errors import compare_predictions, summary_of
from streaming_attention.distributed.choose import Network, Rates, costs
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS, Choice

TWO = Layout(ranks_per_socket=2)
QUERY, PREFILL = factory.query(1 << 16, heads=8, kv_heads=2), factory.prefill(2048)
CEILINGS = {READ: 24.0, GEMM: 200.0, SHORT: 5.0, LONG: 4.0}
"""Of two ranks: GB/s and GFLOP/s together, microseconds and GB/s of each."""


def campaign(workload, share: float = 0.5, measured: float = 1.0) -> list[dict]:
    """One rank at a share of its ceilings on half the work, two ranks at ``measured`` times what the model must say."""
    alone = replace(workload, keys=workload.keys // 2, queries=max(1, workload.queries // 2))
    one = {READ: 16.0, GEMM: 110.0}
    rates = Rates(one[GEMM], one[READ])
    seconds = rates.seconds(models.flops(alone), models.bytes_moved(alone)) / share
    both = measured * expected(workload, share).seconds
    return [
        with_ceilings(Layout(), one),
        with_ceilings(TWO, CEILINGS),
        point(alone, Layout(), seconds),
        point(workload, TWO, both),
    ]


def expected(workload, share: float, strategy: str = "spread"):
    rates = Rates(share * CEILINGS[GEMM] / 2, share * CEILINGS[READ] / 2)
    return costs(strategy, workload, 2, Network(CEILINGS[SHORT] * 1e-6, CEILINGS[LONG] * 1e9), rates)


def with_ceilings(layout, values: dict) -> dict:
    record = factory.ceilings(layout)
    for entry in record["ceilings"]:
        entry["samples"] = [values.get(entry["name"], 1.0)] * 5
    return factory.seal(record)


def point(workload, layout, seconds: float, method: str = "streaming_loops", **options) -> dict:
    entry = factory.entry(method, workload, layout, options=options, samples=[seconds] * 5)
    return factory.attention(workload, layout, [entry])


def predicted(records: list[dict]):
    tables = aggregate(records)
    row = tables.summary[tables.summary["ranks"] > 1].iloc[0].to_dict()
    return ScalingModel(tables).predict(row)


@pytest.mark.parametrize("workload", [QUERY, PREFILL], ids=["query", "prefill"])
@pytest.mark.parametrize("share", [0.25, 0.9, 2.0])
def test_the_share_of_one_rank_s_ceilings_carries_over(workload, share):
    found = predicted(campaign(workload, share))
    assert found.efficiency == pytest.approx(share)
    assert found.seconds == pytest.approx(expected(workload, share).seconds)
    assert found.strategy == "spread"


def test_the_point_itself_plays_no_part():
    assert predicted(campaign(QUERY)).seconds == predicted(campaign(QUERY, measured=7.0)).seconds


@pytest.mark.parametrize(
    "missing", [0, 1, 2], ids=["ceilings of one rank", "ceilings of the ranks", "point on one rank"]
)
def test_without_what_it_needs_there_is_no_prediction(missing):
    records = campaign(QUERY)
    del records[missing]
    assert predicted(records) is None


def at_share(workload, share: float) -> dict:
    """A point on one rank of 16 GB/s and 110 GFLOP/s, as of :func:`campaign`."""
    ideal = Rates(110.0, 16.0).seconds(models.flops(workload), models.bytes_moved(workload))
    return point(workload, Layout(), ideal / share)


def test_what_a_host_reads_counts_where_memory_bounds():
    """The ranks of a host share its last cache, in which a kernel reaches more than the memory's rate."""
    records = campaign(QUERY, share=0.5)
    for keys, share in ((256, 9.0), (QUERY.keys, 0.75), (1 << 20, 0.25)):
        records.append(at_share(replace(QUERY, keys=keys), share))
    assert predicted(records).efficiency == pytest.approx(0.75)


def test_what_a_rank_computes_counts_where_cores_bound():
    """1448 squared is half of 2048 squared."""
    records = campaign(PREFILL, share=0.5)
    for keys, share in ((128, 0.1), (1448, 0.75), (PREFILL.keys, 0.9)):
        records.append(at_share(replace(PREFILL, queries=keys, keys=keys), share))
    assert predicted(records).efficiency == pytest.approx(0.75)


def test_another_shape_says_nothing():
    records = campaign(QUERY)
    records[2] = point(replace(QUERY, keys=QUERY.keys // 2, heads=4), Layout(), 1e-3)
    assert predicted(records) is None


def test_errors_are_of_the_predicted_time():
    frame = compare_predictions(aggregate(campaign(PREFILL, measured=2.0)))
    assert list(frame["error"]) == [pytest.approx(-50.0)]
    assert "1 points" in summary_of(frame) and "0 of them are within 25 %" in summary_of(frame)
    assert "No point" in summary_of(compare_predictions(aggregate([])))


def test_a_plan_takes_strategies_and_messages_into_account():
    choice = Choice("streaming_loops")
    strategy, cost = call_cost(PREFILL, choice, TWO)
    assert strategy == "spread" and cost.bytes_sent > 0
    assert call_seconds(PREFILL, choice, TWO) == cost.seconds
    assert call_seconds(PREFILL, choice, Layout()) == models.predict_seconds(
        PREFILL, METHODS["streaming_loops"], Layout()
    )


def test_the_published_shape_is_reproduced_up_to_eight_ranks_and_not_on_sixteen_at_64k():
    frame = published_shape.reproduce()
    assert len(frame) == 15
    inner = frame[(frame["ranks"] > 1) & (frame["ranks"] < 16)]
    assert inner["serial_error"].abs().max() < published_shape.MISS
    for model in ("model", "serial_model"):
        long = frame[frame["keys"] > 1024].sort_values(["keys", "ranks"])
        assert (long.groupby("keys")[model].diff().dropna() < 0).all()  # more ranks are faster
        speedup = {keys: rows[model].iloc[0] / rows[model].iloc[-1] for keys, rows in frame.groupby("keys")}
        assert speedup[1024] < speedup[8192] < speedup[65536]  # and the more so the longer T
    missed = published_shape.misses(frame)
    assert list(missed[["keys", "ranks"]].itertuples(index=False, name=None)) == [(65536, 16)]
    assert any("16 ranks" in text and "65536" in text for text in published_shape.findings(frame))


def test_one_rank_of_the_published_table_is_taken_as_it_is():
    frame = published_shape.reproduce()
    alone = frame[frame["ranks"] == 1]
    assert np.allclose(alone["model"], alone["milliseconds"]) and np.allclose(alone["serial_error"], 0)


def test_extrapolation_prints_its_assumptions_and_covers_the_questions():
    frame = extrapolate(aggregate(campaign(PREFILL)))
    printed = " ".join(frame.loc[frame["part"] == "assumption", "value"])
    for word in ("1.6 GHz", "10 Gbit/s", "200 Gbit/s", "36.4 GB/s", "assumed"):
        assert word in printed
    beyond = frame[frame["part"] == "extrapolated"]
    assert set(beyond["keys"]) == {count << 20 for count in (1, 2, 4, 8, 16)}
    assert beyond.loc[beyond["cluster"] == "1,024 sockets", "ranks"].max() == 1024
    assert beyond.loc[beyond["cluster"] == "published cluster", "ranks"].max() == 16
    timed = beyond.dropna(subset="model")
    assert (timed["efficiency"] <= 100.001).all() and (timed["memory_gib"] < 512).all()


def test_a_measured_kernel_replaces_the_assumed_efficiency():
    workload = extrapolation.WORKLOADS[1]
    records = campaign(PREFILL, share=0.42)
    for record in records[2:]:
        for entry in record["methods"]:
            entry["method"] = entry["label"] = "streaming"
    share, record = extrapolation.efficiency(aggregate([factory.seal(one) for one in records]), workload)
    assert share == pytest.approx(0.42) and record == records[2]["id"]
    assert extrapolation.efficiency(aggregate([]), workload) == (extrapolation.EFFICIENCY, "")


def test_nothing_fits_where_the_memory_ends():
    cluster = extrapolation.clusters()[0]
    prefill = replace(extrapolation.WORKLOADS[1], keys=1 << 24, queries=1 << 24)
    tables = aggregate([])
    assert extrapolation.answer(tables, cluster, prefill, cluster.layout(1)) is None
    assert np.isnan(extrapolation.seconds(tables, cluster.name, prefill, 1))
    assert json.dumps(extrapolation.seconds(tables, cluster.name, replace(prefill, keys=1 << 20, queries=1 << 20), 16))
