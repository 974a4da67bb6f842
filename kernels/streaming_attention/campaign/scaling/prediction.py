"""Calls over several ranks, predicted from everything that was measured but them, to be held against the measurement.

Three things go in. The layout's own ceilings, taken with all ranks at once: what the memory (STREAM's read) and the
cores (GEMM) give each rank, and what the network gives it (the ring shift, short and long). The method's points on one
rank: which share of that rank's ceilings its kernel reached on about as much work as each rank has now, whatever the
reasons; where memory bounds it, on as much as each host has now, because a host's ranks share its last cache. And the
bytes, FLOPs and messages of the strategy, :mod:`streaming_attention.distributed.choose`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

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
        self._ceilings: dict[tuple, dict[str, dict]] = {}
        for row in tables.ceilings[tables.ceilings["status"] == "passed"].to_dict("records"):
            self._ceilings.setdefault(_place(row), {})[row["name"]] = row
        self._alone: dict[tuple, list[_Alone]] = {}
        for row in _on_one_rank(tables):
            share = self._share(row)
            if share is not None:
                self._alone.setdefault(_kernel_of(row), []).append(_Alone(row, share))
        self._predictions: dict[tuple, Prediction | None] = {}

    def predict(self, row: Mapping) -> Prediction | None:
        """What the model says of a method at a point, None where it lacks a ceiling or a point on one rank.

        Parameters
        ----------
        row : mapping
            Workload's, layout's and method's columns of a table, over several ranks.
        """
        key = tuple(row[name] for name in (*WORKLOAD, *LAYOUT, *METHOD))
        if key not in self._predictions:
            self._predictions[key] = self._predict(row)
        return self._predictions[key]

    def largest_on_one_rank(self, method: str, workload: str) -> tuple[float, str] | None:
        """Share of one rank's ceilings that a method reached at most FLOPs and threads, and the record of it."""
        every = [one for some in self._alone.values() for one in some]
        found = [one for one in every if (one.row["method"], one.row["workload"]) == (method, workload)]
        best = max(found, key=lambda one: (one.flops, one.row["threads"]), default=None)
        return (best.share, best.row["record"]) if best else None

    def _predict(self, row: Mapping) -> Prediction | None:
        ceilings = self._ceilings.get(_place(row), {})
        if not {READ, GEMM, SHORT, LONG} <= set(ceilings):
            return None
        kernel = self._nearest(row, ceilings[GEMM]["median"] / ceilings[READ]["median"])
        if kernel is None:
            return None
        workload, layout, options = _workload(row), _layout(row), json.loads(row["options"])
        network = Network(ceilings[SHORT]["median"] * 1e-6, ceilings[LONG]["median"] * 1e9)
        rates = _rates(ceilings, layout.ranks, kernel.share)
        strategy = strategy_of(row["method"], options, workload, layout)
        cost = costs(strategy, workload, layout.ranks, network, rates, overlaps(options))
        source = ceilings[LONG]
        return Prediction(strategy, cost, kernel.share, kernel.row["record"], source["record"], source["record_digest"])

    def _share(self, row: Mapping) -> float | None:
        """Share of its layout's ceilings that a point on one rank reached; None where they are missing."""
        ceilings = self._ceilings.get(_place(row), {})
        if not {READ, GEMM} <= set(ceilings):
            return None
        workload = _workload(row)
        ideal = _rates(ceilings, 1).seconds(models.flops(workload), models.bytes_moved(workload))
        return float(ideal / row["median"])

    def _nearest(self, row: Mapping, ridge: float) -> _Alone | None:
        """The kernel's point on one rank with the most similar work; other threads only for want.

        Left of the roofline's ridge (FLOP/byte) that is what a host reads, right of it what a rank computes.
        """
        workload = _workload(row)
        of_host = models.intensity(workload) < ridge
        work = models.bytes_moved(workload) / row["nodes"] if of_host else models.flops(workload) / row["ranks"]

        def away(one: _Alone) -> tuple[float, float]:
            near = one.bytes_moved if of_host else one.flops
            return abs(math.log(one.row["threads"] / row["threads"])), abs(math.log(near / work))

        return min(self._alone.get(_kernel_of(row), ()), key=away, default=None)


@dataclass(frozen=True)
class _Alone:
    """A point on one rank, and the share of that rank's ceilings that it reached."""

    row: Mapping
    share: float

    @functools.cached_property
    def flops(self) -> int:
        return models.flops(_workload(self.row))

    @functools.cached_property
    def bytes_moved(self) -> int:
        return models.bytes_moved(_workload(self.row))


@functools.lru_cache(maxsize=4)
def model_of(tables: Tables) -> ScalingModel:
    """The model of a campaign's tables, calibrated once."""
    return ScalingModel(tables)


def _on_one_rank(tables: Tables) -> list[dict]:
    """Passed points on one rank, repeats joined."""
    alone = tables.summary[(tables.summary["status"] == "passed") & (tables.summary["ranks"] == 1)]
    found = {"median": ("median", "median"), "record": ("record", "first")}
    return alone.groupby([*WORKLOAD, *LAYOUT, *METHOD], as_index=False).agg(**found).to_dict("records")


def _kernel_of(row: Mapping) -> tuple:
    """What two points must share for one to tell of the other's kernel: method, its options on one rank, all of the
    shape but the length, and how ranks are bound."""
    options = {name: value for name, value in json.loads(row["options"]).items() if name not in OVER_RANKS}
    queries = "T" if row["queries"] == row["keys"] > 1 else int(row["queries"])
    shape = tuple(row[name] for name in _SHAPE)
    return row["method"], json.dumps(options, sort_keys=True), shape, queries, row["binding"]


def _place(row: Mapping) -> tuple:
    return tuple(row[name] for name in LAYOUT)


def _rates(ceilings: Mapping[str, Mapping], ranks: int, share: float = 1.0) -> Rates:
    """Of one rank, from ceilings of all ranks together."""
    return Rates(*(share / ranks * ceilings[name]["median"] for name in (GEMM, READ)))


def _workload(row: Mapping) -> Workload:
    numbers = {key: int(row[key]) for key in ("batch", "heads", "kv_heads", "queries", "keys", "head_dim")}
    return Workload(row["workload"], **numbers, causal=bool(row["causal"]), dtype=row["dtype"])


def _layout(row: Mapping) -> Layout:
    counts = {key: int(row[key]) for key in ("nodes", "sockets", "ranks_per_socket", "threads")}
    return Layout(**counts, binding=row["binding"])
