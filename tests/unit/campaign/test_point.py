"""Points: names that tell them apart, specs that bring them back, and predictions that behave."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention.campaign.point import (
    INPUT_SECONDS_PER_BYTE,
    START_UP_SECONDS,
    Point,
    from_spec,
    ordered,
    predict_seconds,
    refusals,
    spec,
)
from streaming_attention.dtypes import DTYPES
from streaming_attention.machine.layout import BINDINGS, Layout
from streaming_attention.machine.topology import Machine
from streaming_attention.models import tensor_bytes
from streaming_attention.registry import METHODS, Choice
from streaming_attention.workload import Workload

PROTOCOL = {
    "warmup": 2,
    "min_samples": 9,
    "max_samples": 200,
    "relative_half_width": 0.02,
    "confidence": 0.95,
    "max_seconds": 5.0,
    "min_sample_seconds": 0.002,
    "repeats": 3,
    "seed": 1,
    "cache": "hot",
}
CAMPAIGN = SimpleNamespace(name="trial", protocol=PROTOCOL)

COUNTS = st.integers(1, 300)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,9}", fullmatch=True) | st.sampled_from(["a", "a-b1", "a-b1-h1x1-q1-k1"])
WORKLOADS = st.builds(
    Workload,
    NAMES,
    batch=COUNTS,
    heads=COUNTS,
    kv_heads=COUNTS,
    queries=COUNTS,
    keys=COUNTS,
    head_dim=COUNTS,
    causal=st.booleans(),
    dtype=st.sampled_from(list(DTYPES)),
)
LAYOUTS = st.builds(Layout, COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from(BINDINGS))
CHOICES = st.sampled_from(list(METHODS)).map(Choice) | st.integers(16, 4096).map(
    lambda block: Choice("streaming", {"block": block})
)
POINTS = st.builds(
    Point, WORKLOADS, LAYOUTS, st.lists(CHOICES, min_size=1, max_size=4).map(ordered), st.integers(0, 99)
)


def point(*methods, keys=1024, **fields):
    return Point(
        Workload("query", keys=keys), Layout(**fields), ordered(map(Choice, methods or ("naive", "streaming")))
    )


@given(POINTS, POINTS)
def test_ids_are_equal_for_equal_points_only(one, other):
    same = (one.workload, one.layout, one.repeat) == (other.workload, other.layout, other.repeat)
    assert (one.id == other.id) is same


@given(POINTS)
def test_ids_are_file_names(one):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,200}", one.id)


@given(POINTS, st.sampled_from(["batch", "heads", "kv_heads", "queries", "keys", "head_dim"]))
def test_any_field_changes_the_id(one, field):
    changed = replace(one.workload, **{field: getattr(one.workload, field) + 1})
    assert replace(one, workload=changed).id != one.id
    assert replace(one, workload=replace(one.workload, causal=not one.workload.causal)).id != one.id
    assert replace(one, repeat=one.repeat + 1).id != one.id


@given(POINTS)
def test_a_spec_brings_the_point_back_through_json(one):
    job = json.loads(json.dumps(spec(one, CAMPAIGN)))
    assert from_spec(job) == one and job["id"] == one.id and job["campaign"] == "trial"
    assert [entry["label"] for entry in job["methods"]] == list(one.labels)


def test_a_spec_leaves_out_what_must_not_repeat_a_job():
    more = SimpleNamespace(name="trial", protocol={**PROTOCOL, "repeats": 9})
    assert spec(point(), more) == spec(point(), CAMPAIGN)
    assert spec(point(), SimpleNamespace(name="trial", protocol={**PROTOCOL, "seed": 2})) != spec(point(), CAMPAIGN)


@given(st.lists(CHOICES, min_size=1, max_size=8), st.randoms())
def test_order_of_methods_is_the_registrys_whatever_was_asked_first(choices, random):
    shuffled = random.sample(choices, len(choices))
    assert ordered(choices) == ordered(shuffled) == ordered([*choices, *shuffled])
    names = [choice.method for choice in ordered(choices)]
    assert names == sorted(names, key=list(METHODS).index)
    blocks = [choice.options["block"] for choice in ordered(choices) if choice.options]
    assert blocks == sorted(set(blocks))


def test_refusals_by_machine_and_by_method():
    machine = Machine(cores_per_socket=4, memory_gib=8)
    assert refusals(point(threads=4), machine) == {}
    assert set(refusals(point(threads=5), machine)) == {"naive", "streaming"}
    found = refusals(point(ranks_per_socket=2, threads=2), machine)
    assert set(found) >= {"naive"} and "one rank" in found["naive"]


def test_predictions_count_what_runs():
    both, one = predict_seconds(point(), PROTOCOL), predict_seconds(point(), PROTOCOL, ["streaming"])
    assert START_UP_SECONDS < one < both
    assert predict_seconds(point("naive"), {**PROTOCOL, "max_samples": 9}) < predict_seconds(point("naive"), PROTOCOL)


def test_a_prediction_is_bounded_by_the_budget():
    """However long a call, a method costs its budget and the calls around it; one that can't fit costs nothing."""
    for keys in (2**10, 2**16, 2**20, 2**24):
        workload = Workload("prefill", queries=min(keys, 4096), keys=keys)
        seconds = predict_seconds(Point(workload, Layout(), (Choice("streaming"),)), PROTOCOL)
        calls = (2 + PROTOCOL["warmup"]) / 3 * PROTOCOL["max_seconds"]
        inputs = tensor_bytes(workload) * INPUT_SECONDS_PER_BYTE
        assert seconds <= START_UP_SECONDS + PROTOCOL["max_seconds"] + calls + inputs


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_more_threads_are_predicted_to_be_no_slower(threads):
    more = predict_seconds(point("streaming", keys=2**20, threads=2 * threads), PROTOCOL)
    assert more <= predict_seconds(point("streaming", keys=2**20, threads=threads), PROTOCOL)
