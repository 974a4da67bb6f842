"""A point measured in this process, with methods that misbehave put into the registry beside the real ones."""

import time
from dataclasses import replace

import numpy as np
import pytest

from streaming_attention import registry
from streaming_attention.campaign import contender
from streaming_attention.campaign.measure import measure_point
from streaming_attention.campaign.process import Process
from streaming_attention.campaign.record import load_record, write_record
from streaming_attention.distributed.team import Team
from streaming_attention.machine.layout import Layout
from streaming_attention.prepared import Prepared

VARIABLES = {"set": {}, "removed": {}}


def textbook(inputs):
    group = inputs.q.shape[1] // inputs.k.shape[1]
    k, v = (np.repeat(tensor, group, axis=1) for tensor in (inputs.k, inputs.v))
    logits = np.einsum("bhqd,bhkd->bhqk", inputs.q, k) * np.float32(inputs.q.shape[-1] ** -0.5)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(-1, keepdims=True), v)


def right(inputs, output, calls):
    output[:] = textbook(inputs)


def wrong(inputs, output, calls):
    output[:] = textbook(inputs) * np.float32(1.001)


def not_a_number(inputs, output, calls):
    output[:] = np.nan


def stale(inputs, output, calls):
    """Right the first time, and from then on whatever it was."""
    if calls[0] == 1:
        output[:] = textbook(inputs)


def crash(inputs, output, calls):
    raise RuntimeError("kernel panic")


def hungry(inputs, output, calls):
    held = np.ones(2**22)
    output[:] = textbook(inputs) * np.float32(held[-1])


def slow(inputs, output, calls):
    time.sleep(0.2)
    output[:] = textbook(inputs)


@pytest.fixture
def measure(monkeypatch):
    def run(*bodies, refused=None, **protocol):
        for body in bodies:
            monkeypatch.setitem(registry.METHODS, body.__name__, entry(body))
        spec = {
            "id": "query-x",
            "campaign": "test",
            "workload": {
                "name": "query",
                "batch": 1,
                "heads": 4,
                "kv_heads": 2,
                "queries": 3,
                "keys": 64,
                "head_dim": 16,
                "causal": False,
                "dtype": "fp32",
            },
            "layout": {"nodes": 1, "sockets": 1, "ranks_per_socket": 1, "threads": 1, "binding": "none"},
            "repeat": 0,
            "protocol": {"warmup": 1, "min_samples": 3, "max_samples": 5, "max_seconds": 1.0, **protocol},
            "methods": [{"method": body.__name__, "options": {}} for body in bodies],
            "refused": refused or {},
            "log": "x.log",
            "repeat_command": "none",
        }
        return measure_point(spec, Team(), Process(Layout(**spec["layout"]), VARIABLES))

    return run


def entry(body):
    """A registry entry like ``naive``'s whose prepare runs ``body``."""

    def prepare(inputs, threads, comm, options):
        output, calls = np.zeros_like(inputs.q), [0]

        def compute():
            calls[0] += 1
            body(inputs, output, calls)

        return Prepared([("compute", compute)], output, body.__name__)

    class Entry(type(registry.METHODS["naive"])):
        def load(self, ranks=1):
            return prepare

    values = {name: getattr(registry.METHODS["naive"], name) for name in registry.METHODS["naive"].__dataclass_fields__}
    return Entry(**{**values, "name": body.__name__})


def by_label(record):
    return {method["label"]: method for method in record["methods"]}


def test_what_passes_is_timed_checked_twice_and_fits_the_schema(measure, tmp_path):
    record = measure(right)
    write_record(tmp_path / "r.json", record)
    entry = by_label(load_record(tmp_path / "r.json"))["right"]
    assert entry["status"] == "passed"
    assert 3 <= len(entry["samples"]) <= 5
    assert entry["error_before"]["passed"]
    assert entry["error_after"]["passed"]
    assert entry["error_before"]["rows"] == 3


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (wrong, "incorrect", "relative L2 error"),
        (not_a_number, "incorrect", "relative L2 error None"),
        (stale, "incorrect", "after timing"),
        (crash, "error", "RuntimeError: kernel panic"),
    ],
)
def test_what_does_not_pass_has_a_reason_and_no_timing(measure, tmp_path, body, status, reason):
    record = measure(right, body)
    write_record(tmp_path / "r.json", record)
    methods = by_label(record)
    assert methods[body.__name__]["status"] == status
    assert reason in methods[body.__name__]["reason"]
    assert methods[body.__name__]["samples"] == []
    assert methods["right"]["status"] == "passed"


def test_a_method_that_the_gate_stopped_is_not_even_run(measure):
    def tripwire(inputs, output, calls):
        raise AssertionError("was run")

    record = measure(tripwire, refused={"tripwire": "stopped at the gate: wrong"})
    assert by_label(record)["tripwire"]["status"] == "incorrect"
    assert by_label(record)["tripwire"]["reason"] == "stopped at the gate: wrong"


def test_a_method_too_slow_for_the_budget_times_out_before_a_whole_call(measure, monkeypatch):
    monkeypatch.setattr(contender.models, "predict_seconds", lambda *arguments: 10.0)
    record = measure(slow, max_seconds=0.3)
    assert by_label(record)["slow"]["status"] == "timeout"
    assert "the budget allows 0.1 s" in by_label(record)["slow"]["reason"]


def test_workspace_is_seen_from_outside(measure):
    record = measure(right, hungry)
    workspace = {label: method["memory"]["workspace_bytes"] for label, method in by_label(record).items()}
    if workspace["hungry"] is None:
        pytest.skip("this kernel doesn't let a process reset its peak")
    assert workspace["hungry"] > 0.95 * 8 * 2**22  # the kernel counts pages in batches
    assert workspace["right"] < 4 * 2**20


def test_workspaces_of_all_methods_count_together(measure, monkeypatch):
    monkeypatch.setattr(contender.memory, "available_bytes", lambda: 1)
    assert by_label(measure(right))["right"]["status"] == "infeasible"


def test_fresh_inputs_differ_from_the_timed_ones(measure):
    record = measure(right)
    entry = by_label(record)["right"]
    assert entry["error_before"]["max_abs"] != entry["error_after"]["max_abs"]


def test_a_choice_with_options_keeps_its_label():
    choice = contender.Contender(registry.Choice("streaming", {"block": 64}))
    assert choice.choice.label == "streaming block=64"
    assert replace(choice).method.name == "streaming"
