"""Workloads, layouts and numbers in words."""

import factory
import pytest

from streaming_attention.campaign import words
from streaming_attention.machine.layout import Layout


def row(workload, layout=Layout()) -> dict:  # noqa: B008
    return {**workload.as_dict(), **layout.as_dict(), "ranks": layout.ranks}


@pytest.mark.parametrize(
    ("workload", "text"),
    [
        (factory.query(1024), "1 query, 1 head, d = 128, fp32"),
        (factory.query(1024, heads=8, kv_heads=2, batch=3), "1 query, batch 3, 8 heads / 2 KV, d = 128, fp32"),
        (factory.prefill(1024), "T queries, 16 heads / 8 KV, d = 128, causal, fp32"),
    ],
)
def test_shapes(workload, text):
    assert words.say_shape(row(workload)) == text


def test_a_fixed_number_of_queries_is_not_called_T():
    assert words.say_shape(row(factory.prefill(1024)), square=False).startswith("1024 queries, ")


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        (Layout(), "1 thread"),
        (Layout(threads=4, binding="none"), "4 threads, unbound"),
        (Layout(nodes=2, sockets=2, threads=3), "4 ranks × 3 threads"),
    ],
)
def test_layouts(layout, text):
    assert words.say_layout(row(factory.query(), layout)) == text


@pytest.mark.parametrize(
    ("field", "value", "text"), [("causal", False, "full"), ("kv_heads", 2, "2 KV heads"), ("dtype", "fp32", "fp32")]
)
def test_fields_of_a_shape(field, value, text):
    assert words.say_field(field, value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(512, "512"), (1024, "1K"), (1536, "1.5K"), (65536, "64K"), (1 << 20, "1M"), (1000, "1000")]
)
def test_lengths_are_written_short(value, text):
    assert words.say_length(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e-7, "1e-7"), (0.05, "0.05"), (3.0, "3"), (20000.0, "20 000")])
def test_numbers_on_axes_are_plain(value, text):
    assert words.say_number(value) == text
