"""What each job of a campaign is told, as JSON: enough to repeat it without the config or the workflow."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from streaming_attention.campaign.point import NOT_OF_A_JOB
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS

_TWO_THREADS = Layout(threads=2, binding="none")
_TWO_RANKS = Layout(ranks_per_socket=2, binding="none")
"""The gate and the compiler need no cores of their own: they judge results and warm caches, they time nothing."""


def gate_spec(campaign, method: str, dtype: str, mode: str) -> dict:
    """The gate's job for one method: its default options and each option's extremes, over threads or over ranks.

    Over ranks every way in which ranks can work together is tried with every other: each strategy, with overlap and
    without. What the campaign sweeps plays no part: a value added to a sweep must not send old points through the gate
    again.
    """
    layout = _TWO_RANKS if mode == "ranks" else _TWO_THREADS
    options = METHODS[method].options
    extremes = [{name: value} for name, option in options.items() if not option.over_ranks for value in option.extremes]
    return {
        "id": f"gate-{method}-{dtype}-{mode}",
        "campaign": campaign.name,
        "method": method,
        "dtype": dtype,
        "mode": mode,
        "options": [{}, *extremes, *(_ways_over_ranks(options) if mode == "ranks" else [])],
        "layout": layout.as_dict(),
    }


def _ways_over_ranks(options: Mapping) -> list[dict]:
    """Every combination of the options that matter over ranks; the defaults alone are tried anyway."""
    words = {name: option.values for name, option in options.items() if option.over_ranks}
    ways = [dict(zip(words, values, strict=True)) for values in itertools.product(*words.values())]
    return [way for way in ways if any(value != options[name].default for name, value in way.items())]


def compile_spec(campaign, method: str, dtype: str) -> dict:
    """The compile job of one method in one precision."""
    return {
        "id": f"compile-{method}-{dtype}",
        "campaign": campaign.name,
        "method": method,
        "dtype": dtype,
        "layout": _TWO_THREADS.as_dict(),
    }


def ceilings_spec(campaign, layout: Layout) -> dict:
    """The job that measures the ceilings of one layout."""
    return {
        "id": f"ceilings-{layout.slug}",
        "campaign": campaign.name,
        "layout": replace(layout).as_dict(),
        "protocol": {key: value for key, value in campaign.protocol.items() if key not in NOT_OF_A_JOB},
    }


def environment_spec(campaign) -> dict:
    """The job that describes the machine it runs on."""
    return {"id": "environment", "campaign": campaign.name, "layout": Layout(binding="none").as_dict()}


def from_record(record: dict) -> dict:
    """The job that a record came from, to be run again."""
    keys = {
        "attention": ("workload", "layout", "repeat", "protocol", "predicted_seconds"),
        "ceilings": ("layout", "protocol"),
        "gate": ("method", "dtype", "mode", "options", "layout"),
        "compile": ("method", "dtype", "layout"),
        "environment": ("layout",),
    }[record["kind"]]
    job = {key: record[key] for key in ("id", "campaign", *keys)}
    if record["kind"] == "attention":
        job["methods"] = [{key: entry[key] for key in ("method", "options", "label")} for entry in record["methods"]]
    return job
