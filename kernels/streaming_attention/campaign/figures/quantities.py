"""What figures show: each quantity by name, with its unit and how it follows from samples.

Figures compute their rows with these, from the tables; the verification computes them again, from the records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from streaming_attention import models
from streaming_attention.campaign import published
from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.scaling import extrapolation
from streaming_attention.campaign.scaling.prediction import model_of
from streaming_attention.campaign.statistics import Interval, pooled_interval, pooled_ratio_interval, ratio_of_pools
from streaming_attention.workload import Workload

Groups = Sequence[np.ndarray]


@dataclass(frozen=True)
class Quantity:
    """A number with an interval that follows from the samples of one or several records.

    Parameters
    ----------
    unit : str
    timing : bool
        Whether it follows from run times, which only a method with status ``passed`` has.
    estimate : callable
        ``(tables, row) -> Interval``; the row's columns are those of a sidecar.
    """

    unit: str
    timing: bool
    estimate: Callable[[Tables, dict], Interval]


def evaluate(tables: Tables, row: dict) -> Interval:
    """The value of a sidecar row, computed from the samples of the records that it names.

    Parameters
    ----------
    tables : Tables
    row : dict
        ``quantity, record, label, reference, reference_record, confidence`` and the workload's columns; ids of
        several records are separated by spaces. ``published:<line>`` stands for a line of the published data.

    Raises
    ------
    KeyError
        A record lacks what the row claims to show.
    """
    return QUANTITIES[row["quantity"]].estimate(tables, row)


def state(row: dict, interval: Interval) -> dict:
    """``value, low, high`` as a row states them: no bounds where the interval is unknown or was not published."""
    value, low, high = interval
    bounded = known(low) and known(high) and row["source"] != "published"
    return {"value": value, "low": low if bounded else None, "high": high if bounded else None}


def _own(tables: Tables, row: dict) -> list[np.ndarray]:
    return [_samples(tables, record, row["label"]) for record in row["record"].split()]


def _other(tables: Tables, row: dict) -> list[np.ndarray]:
    return [_samples(tables, record, row["reference"]) for record in row["reference_record"].split()]


def _samples(tables: Tables, record: str, label: str) -> np.ndarray:
    """Seconds per call, or a ceiling's rates, whichever the record holds under the label."""
    if record.startswith("published:"):
        return np.array([published.lookup(record)])
    return tables.samples(record, label)


def _time(tables: Tables, row: dict) -> Interval:
    return pooled_interval([1e3 * seconds for seconds in _own(tables, row)], row["confidence"])


def _speedup(tables: Tables, row: dict) -> Interval:
    pairs = zip(_other(tables, row), _own(tables, row), strict=True)
    return pooled_ratio_interval(list(pairs), row["confidence"])


def _relative_time(tables: Tables, row: dict) -> Interval:
    if (row["label"], row["record"]) == (row["reference"], row["reference_record"]):
        return Interval(1.0, 1.0, 1.0)
    pairs = zip(_own(tables, row), _other(tables, row), strict=True)
    return pooled_ratio_interval(list(pairs), row["confidence"])


def _rate(tables: Tables, row: dict) -> Interval:
    return pooled_interval(_own(tables, row), row["confidence"])


def _performance(tables: Tables, row: dict) -> Interval:
    work = models.flops(workload_of(row)) / 1e9
    return pooled_interval([work / seconds for seconds in _own(tables, row)], row["confidence"])


def _share(tables: Tables, row: dict) -> Interval:
    moved = models.bytes_moved(workload_of(row)) / 1e9
    rates = [100.0 * moved / seconds for seconds in _own(tables, row)]
    return ratio_of_pools(rates, _other(tables, row), row["confidence"])


def _predicted_time(tables: Tables, row: dict) -> Interval:
    prediction = model_of(tables).predict(row)
    value = 1e3 * prediction.seconds if prediction else math.nan
    return Interval(value, value, value)


def _extrapolated_time(tables: Tables, row: dict) -> Interval:
    value = extrapolation.seconds(tables, row["reference"], workload_of(row), int(row["ranks"]))
    return Interval(value, value, value)


def _stage(tables: Tables, row: dict) -> Interval:
    """The end of one stage of a timeline, and as bounds the time that it took."""
    stage = _of_rank(tables, row)["stages"][int(row["stage"])]
    return Interval(1e3 * stage["end"], 1e3 * stage["start"], 1e3 * stage["end"])


def _spent(name: str) -> Callable[[Tables, dict], Interval]:
    def estimate(tables: Tables, row: dict) -> Interval:
        value = 1e3 * _of_rank(tables, row)[name]
        return Interval(value, value, value)

    return estimate


def _of_rank(tables: Tables, row: dict) -> dict:
    return tables.timeline(row["record"], row["label"])[int(row["rank"])]


def _column(name: str, worst: Callable = np.median, factor: float = 1.0) -> Callable[[Tables, dict], Interval]:
    """A number that a record states for a method; over several records one of them, and their range."""

    def estimate(tables: Tables, row: dict) -> Interval:
        values = [factor * tables.fact(record, row["label"], name) for record in row["record"].split()]
        return Interval(float(worst(values)), float(min(values)), float(max(values)))

    return estimate


def _model(name: str, factor: float = 1.0) -> Callable[[Tables, dict], Interval]:
    def estimate(tables: Tables, row: dict) -> Interval:
        value = factor * MODELS[name](workload_of(row))
        return Interval(value, value, value)

    return estimate


MODELS = {
    "tensors": models.tensor_bytes,
    "scores": lambda workload: models.scores_bytes(workload) / (workload.batch * workload.heads),
}
"""Bytes that a guide of the memory figure stands for: all tensors, and the scores of one head."""

MIB = 1.0 / 2**20
QUANTITIES = {
    "time": Quantity("ms", True, _time),
    "speedup": Quantity("1", True, _speedup),
    "relative_time": Quantity("1", True, _relative_time),
    "performance": Quantity("GFLOP/s", True, _performance),
    "share": Quantity("%", True, _share),
    "bandwidth": Quantity("GB/s", True, _rate),
    "compute": Quantity("GFLOP/s", True, _rate),
    "predicted_time": Quantity("ms", False, _predicted_time),
    "extrapolated_time": Quantity("s", False, _extrapolated_time),
    "stage": Quantity("ms", True, _stage),
    **{f"rank_{name}": Quantity("ms", True, _spent(name)) for name in ("compute", "communication", "idle")},
    "peak_memory": Quantity("MiB", False, _column("peak_bytes", factor=MIB)),
    "tensors": Quantity("MiB", False, _model("tensors", MIB)),
    "scores": Quantity("MiB", False, _model("scores", MIB)),
    **{
        name: Quantity("1", False, _column(name, worst=max))
        for name in ("error_before", "error_after", "plain_before", "limit_before")
    },
}
"""``time`` per call; ``speedup`` = reference / method and ``relative_time`` = method / reference, inside each record;
``predicted_time`` and ``extrapolated_time`` by the scaling model; ``share`` of the reference ceiling's bandwidth;
``stage`` and ``rank_*`` are of one rank in one call; ``error_*``, ``plain_*``, ``limit_*`` are relative L2 errors."""


def workload_of(row: dict) -> Workload:
    """The workload of a sidecar row."""
    numbers = {key: int(row[key]) for key in ("batch", "heads", "kv_heads", "queries", "keys", "head_dim")}
    return Workload(row["workload"], **numbers, causal=bool(row["causal"]), dtype=row["dtype"])


def known(value) -> bool:
    """Whether a number is there: not missing, not infinite."""
    return not pd.isna(value) and math.isfinite(value)
