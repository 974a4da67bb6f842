"""Calls over several ranks, predicted from everything that was measured but them, to be held against the measurement.

Three things go in. The layout's own ceilings, taken with all ranks at once: what the memory (STREAM's read) and the
cores (GEMM) give each rank, and what the network gives it (the ring shift, short and long). The method's points on one
rank: which share of that rank's ceilings its kernel reached on about as much work as each rank has now, whatever the
reasons. And the bytes, FLOPs and messages of the strategy, :mod:`streaming_attention.distributed.choose`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from streaming_attention import models
from streaming_attention.campaign.aggregate import LAYOUT, METHOD, WORKLOAD, Tables
from streaming_attention.campaign.scaling.nominal import OVER_RANKS, overlaps, strategy_of
from streaming_attention.distributed.choose import Cost, Network, Rates, costs
from streaming_attention.machine.layout import Layout
from streaming_attention.workload import Workload

READ, GEMM, SHORT, LONG = "read", "gemm_fp32", "shift_1KiB", "shift_4MiB"
"""Ceilings that the model reads."""

_SHAPE = [name for name in WORKLOAD if name not in ("queries", "keys")]


@dataclass(frozen=True)
class Prediction:
    """A predicted call.

    Parameters
    ----------
    strategy : str
    cost : Cost
    efficiency : float
        Share of one rank's ceilings that the kernel reached on one rank.
    reference : str
        Record of that one rank.
    network, network_digest : str
        Record of the layout's ceilings.
    """

    strategy: str
    cost: Cost
    efficiency: float
    reference: str
    network: str
    network_digest: str

    @property
    def seconds(self) -> float:
        return self.cost.seconds


class ScalingModel:
    """The model as one campaign calibrates it.

    Parameters
    ----------
    tables : Tables
        Points over several ranks are in there too, and are not looked at.
    """

    def __init__(self, tables: Tables):
        passed = tables.ceilings[tables.ceilings["status"] == "passed"]
        self._ceilings = {layout: rows.set_index("name") for layout, rows in passed.groupby(list(LAYOUT))}
        alone = tables.summary[(tables.summary["status"] == "passed") & (tables.summary["ranks"] == 1)]
        self._alone = alone.groupby([*WORKLOAD, *LAYOUT, *METHOD], as_index=False).agg(
            median=("median", "median"), record=("record", "first")
        )

    def predict(self, row: Mapping) -> Prediction | None:
        """What the model says of a method at a point, None where it lacks a ceiling or a point on one rank.

        Parameters
        ----------
        row : mapping
            Workload's, layout's and method's columns of a table, over several ranks.
        """
        ceilings = self._ceilings.get(tuple(row[name] for name in LAYOUT))
        if ceilings is None or not {READ, GEMM, SHORT, LONG} <= set(ceilings.index):
            return None
        workload, layout, options = _workload(row), _layout(row), json.loads(row["options"])
        found = self._kernel(row["method"], options, workload, layout)
        if found is None:
            return None
        efficiency, reference = found
        rates = _rates(ceilings, layout.ranks, efficiency)
        network = Network(float(ceilings.loc[SHORT, "median"]) * 1e-6, float(ceilings.loc[LONG, "median"]) * 1e9)
        strategy = strategy_of(row["method"], options, workload, layout)
        cost = costs(strategy, workload, layout.ranks, network, rates, overlaps(options))
        source = ceilings.loc[LONG]
        return Prediction(strategy, cost, efficiency, reference, source["record"], source["record_digest"])

    def largest_on_one_rank(self, method: str, workload: str) -> tuple[float, str] | None:
        """Share of one rank's ceilings that a method reached at most FLOPs and threads, and the record of it."""
        frame = self._alone[(self._alone["method"] == method) & (self._alone["workload"] == workload)]
        rows = sorted(frame.to_dict("records"), key=lambda row: (models.flops(_workload(row)), row["threads"]))
        for row in reversed(rows):
            share = self._share(row)
            if share is not None:
                return share, row["record"]
        return None

    def _share(self, row: Mapping) -> float | None:
        """Share of its layout's ceilings that a point on one rank reached; None where they are missing."""
        ceilings = self._ceilings.get(tuple(row[name] for name in LAYOUT))
        if ceilings is None or not {READ, GEMM} <= set(ceilings.index):
            return None
        workload = _workload(row)
        ideal = _rates(ceilings, 1).seconds(models.flops(workload), models.bytes_moved(workload))
        return float(ideal / row["median"])

    def _kernel(self, method: str, options: dict, workload: Workload, layout: Layout) -> tuple[float, str] | None:
        """Share of one rank's ceilings that the method reached there, on about the work of one rank now."""
        frame = self._candidates(method, options, workload, layout)
        best, distance = None, math.inf
        for row in frame.to_dict("records"):
            away = abs(math.log(models.flops(_workload(row)) * layout.ranks / models.flops(workload)))
            away += 1e3 * abs(math.log(row["threads"] / layout.threads))  # other threads only for want of the same
            share = self._share(row) if away < distance else None
            if share is not None:
                best, distance = (share, row["record"]), away
        return best

    def _candidates(self, method: str, options: dict, workload: Workload, layout: Layout) -> pd.DataFrame:
        """Points of the same kernel on one rank, in the same shape but for the length."""
        frame, fields = self._alone, {**workload.as_dict(), "workload": workload.name}
        frame = frame[(frame["method"] == method) & (frame[_SHAPE] == pd.Series(fields)[_SHAPE]).all(axis=1)]
        square = workload.queries == workload.keys
        alike = frame["queries"] == (frame["keys"] if square else workload.queries)
        wanted = _without(options)
        same = np.array([_without(json.loads(text)) == wanted for text in frame["options"]], dtype=bool)
        return frame[alike & same & (frame["binding"] == layout.binding)]


@functools.lru_cache(maxsize=4)
def model_of(tables: Tables) -> ScalingModel:
    """The model of a campaign's tables, calibrated once."""
    return ScalingModel(tables)


def _rates(ceilings: pd.DataFrame, ranks: int, efficiency: float = 1.0) -> Rates:
    """Of one rank, from ceilings of all ranks together."""
    share = efficiency / ranks
    return Rates(gflops=share * float(ceilings.loc[GEMM, "median"]), gbs=share * float(ceilings.loc[READ, "median"]))


def _workload(row: Mapping) -> Workload:
    numbers = {key: int(row[key]) for key in ("batch", "heads", "kv_heads", "queries", "keys", "head_dim")}
    return Workload(row["workload"], **numbers, causal=bool(row["causal"]), dtype=row["dtype"])


def _layout(row: Mapping) -> Layout:
    counts = {key: int(row[key]) for key in ("nodes", "sockets", "ranks_per_socket", "threads")}
    return Layout(**counts, binding=row["binding"])


def _without(options: Mapping) -> dict:
    """Options that the kernel of one rank has as well."""
    return {name: value for name, value in options.items() if name not in OVER_RANKS}
