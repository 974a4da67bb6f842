"""From records to tables: a row per sample, a row per record and method, a row per record and ceiling.

The tables hold nothing that a record doesn't: the same records give the same bytes, in whatever order they come.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from streaming_attention.campaign.files import write_atomically
from streaming_attention.campaign.record import load_record
from streaming_attention.campaign.statistics import CONFIDENCE, median_interval, outliers

_RECORD = {"record": "str", "record_digest": "str", "campaign": "str", "cpu": "str", "host": "str"}
_POINT = {"point": "str", "repeat": "int64"}
WORKLOAD = {
    "workload": "str",
    "batch": "int64",
    "heads": "int64",
    "kv_heads": "int64",
    "queries": "int64",
    "keys": "int64",
    "head_dim": "int64",
    "causal": "bool",
    "dtype": "str",
}
LAYOUT = {
    "nodes": "int64",
    "sockets": "int64",
    "ranks_per_socket": "int64",
    "ranks": "int64",
    "threads": "int64",
    "binding": "str",
}
METHOD = {"method": "str", "options": "str", "label": "str"}
"""Columns, with their types, that identify a workload, a layout and a method with its options (as JSON)."""

_IDENTITY = {**_RECORD, **_POINT, **WORKLOAD, **LAYOUT, **METHOD}
MEASUREMENTS = {
    **_IDENTITY,
    "sample": "int64",
    "start": "float64",
    "seconds": "float64",
    "compute": "float64",
    "communication": "float64",
    "outlier": "bool",
}
SUMMARY = {
    **_IDENTITY,
    "status": "str",
    "reason": "str",
    "kernel": "str",
    "confidence": "float64",
    "n": "int64",
    "n_outliers": "int64",
    **dict.fromkeys(("median", "low", "high", "minimum", "jit_seconds", "flops", "bytes", "gflops", "gbs"), "float64"),
    **dict.fromkeys(("error_before", "error_after", "plain_before", "plain_after"), "float64"),
    **dict.fromkeys(("limit_before", "limit_after"), "float64"),
    **dict.fromkeys(("peak_bytes", "workspace_bytes", "tensors_bytes", "model_bytes"), "Int64"),
    "converged": "boolean",
    "timeline": "str",
    "log": "str",
}
CEILINGS = {
    **_RECORD,
    **LAYOUT,
    "name": "str",
    "unit": "str",
    "status": "str",
    "reason": "str",
    "confidence": "float64",
    "n": "int64",
    **dict.fromkeys(("median", "low", "high", "maximum"), "float64"),
    "samples": "str",
    "log": "str",
}
"""Columns and types of the three tables; ``samples`` of the ceilings and ``timeline`` are JSON lists."""

_WORKLOAD_KEYS = ("name", *list(WORKLOAD)[1:])
_LAYOUT_KEYS = tuple(key for key in LAYOUT if key != "ranks")
SCHEMAS = {"measurements": MEASUREMENTS, "summary": SUMMARY, "ceilings": CEILINGS}


@dataclass(frozen=True, eq=False)
class Tables:
    """The aggregated tables of one campaign, as :data:`SCHEMAS` describes them."""

    measurements: pd.DataFrame
    summary: pd.DataFrame
    ceilings: pd.DataFrame

    def samples(self, record: str, label: str) -> np.ndarray:
        """The samples of a method of an attention record, seconds per call, or of a ceiling, in its unit.

        Raises
        ------
        KeyError
            The record has none under that label.
        """
        return self._samples[record, label]

    def fact(self, record: str, label: str, name: str) -> float:
        """A number that an attention record states once for a method: a column of ``summary``; NaN when absent."""
        return float(self._facts[record, label][name])

    def timeline(self, record: str, label: str) -> list[dict]:
        """What every rank did when in one call of a method, as :mod:`.timeline` describes it.

        Raises
        ------
        KeyError
            The record has none under that label.
        """
        return self._timelines[record, label]

    @functools.cached_property
    def _timelines(self) -> dict[tuple[str, str], list[dict]]:
        frame = self.summary[self.summary["timeline"] != ""]
        entries = frame[["record", "label", "timeline"]].itertuples(index=False)
        return {(record, label): json.loads(timeline) for record, label, timeline in entries}

    @functools.cached_property
    def _samples(self) -> dict[tuple[str, str], np.ndarray]:
        groups = self.measurements.groupby(["record", "label"], sort=False)["seconds"]
        rates = zip(self.ceilings["record"], self.ceilings["name"], self.ceilings["samples"], strict=True)
        return {
            **{key: values.to_numpy() for key, values in groups},
            **{(record, name): np.array(json.loads(samples)) for record, name, samples in rates if samples != "[]"},
        }

    @functools.cached_property
    def _facts(self) -> dict[tuple[str, str], dict]:
        numbers = [name for name, kind in SUMMARY.items() if kind in ("float64", "Int64")]
        frame = self.summary[numbers].astype("float64")
        keys = zip(self.summary["record"], self.summary["label"], strict=True)
        return dict(zip(keys, frame.to_dict("records"), strict=True))


def aggregate(records: Iterable[dict]) -> Tables:
    """Tables of attention and ceilings records; records of other kinds are passed over.

    Parameters
    ----------
    records : iterable of dict
        As :func:`~streaming_attention.campaign.record.load_record` returns them, in any order.

    Raises
    ------
    ValueError
        Two records with the same id.
    """
    records = list(records)
    _refuse_duplicates(records)
    attention, ceilings = (
        sorted((record for record in records if record["kind"] == kind), key=_order)
        for kind in ("attention", "ceilings")
    )
    return Tables(
        frame_of([row for record in attention for row in _measurement_rows(record)], MEASUREMENTS),
        frame_of([_summary_row(record, entry) for record in attention for entry in record["methods"]], SUMMARY),
        frame_of([_ceiling_row(record, entry) for record in ceilings for entry in record["ceilings"]], CEILINGS),
    )


def aggregate_files(paths: Iterable[str | os.PathLike]) -> Tables:
    """:func:`aggregate` of record files; one that can't be trusted raises ``RecordError``."""
    return aggregate([load_record(path) for path in paths])


def write_tables(tables: Tables, directory: str | os.PathLike) -> None:
    """Write ``measurements.csv``, ``summary.csv`` and ``ceilings.csv`` into the directory."""
    for name in SCHEMAS:
        write_csv(getattr(tables, name), Path(directory) / f"{name}.csv")


def read_tables(directory: str | os.PathLike) -> Tables:
    """The tables as :func:`write_tables` wrote them, values and types unchanged."""
    return Tables(*(read_csv(Path(directory) / f"{name}.csv", schema) for name, schema in SCHEMAS.items()))


def write_csv(frame: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write a table atomically: numbers so that they read back bit for bit, nothing for what is missing."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def read_csv(path: str | os.PathLike, schema: dict[str, str]) -> pd.DataFrame:
    """Read a table with the given columns and types; text like ``NA`` or ``None`` stays text.

    Raises
    ------
    ValueError
        The file lacks a column of the schema.
    """
    blank = {name: [""] for name, kind in schema.items() if kind != "str"}
    frame = pd.read_csv(path, dtype=schema, keep_default_na=False, na_values=blank)
    missing = [name for name in schema if name not in frame.columns]
    if missing:
        raise ValueError(f"{path}: missing columns {', '.join(missing)}")
    return frame


def frame_of(rows: Iterable[dict], schema: Mapping[str, str]) -> pd.DataFrame:
    """Rows as a table with the given columns and types; what a row doesn't state stays empty."""
    frame = pd.DataFrame(list(rows), columns=list(schema), dtype=object)
    text = [name for name, kind in schema.items() if kind == "str"]
    frame[text] = frame[text].where(frame[text].notna(), "")
    return frame.astype(dict(schema))


def _order(record: dict) -> tuple:
    workload = tuple(record["workload"][key] for key in _WORKLOAD_KEYS) if "workload" in record else ()
    return workload, tuple(record["layout"][key] for key in _LAYOUT_KEYS), record.get("repeat", 0), record["id"]


def _refuse_duplicates(records: list[dict]) -> None:
    counts = Counter(record["id"] for record in records)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise ValueError(f"records: the id {twice[0]} occurs more than once")


def _ranks(layout: dict) -> int:
    return layout["nodes"] * layout["sockets"] * layout["ranks_per_socket"]


def _source(record: dict) -> dict:
    ranks = record["environment"]["ranks"]
    return {
        "record": record["id"],
        "record_digest": record["digest"],
        "campaign": record["campaign"],
        "cpu": " + ".join(sorted({rank["cpu"] for rank in ranks})),
        "host": " + ".join(sorted({rank["host"] for rank in ranks})),
        **record["layout"],
        "ranks": _ranks(record["layout"]),
    }


def _identity(record: dict, entry: dict) -> dict:
    workload = dict(record["workload"])
    return {
        **_source(record),
        "point": record["id"].rsplit("-rep", 1)[0],
        "repeat": record["repeat"],
        "workload": workload.pop("name"),
        **workload,
        "method": entry["method"],
        "options": json.dumps(entry["options"], sort_keys=True),
        "label": entry["label"],
    }


def _measurement_rows(record: dict) -> Iterable[dict]:
    for entry in record["methods"]:
        identity = _identity(record, entry)
        flags = outliers(entry["samples"])
        columns = (entry["starts"], entry["samples"], entry["compute"], entry["communication"], flags)
        for index, values in enumerate(zip(*columns, strict=True)):
            named = zip(("start", "seconds", "compute", "communication", "outlier"), values, strict=True)
            yield {**identity, "sample": index, **dict(named)}


def _summary_row(record: dict, entry: dict) -> dict:
    before, after = entry["error_before"] or {}, entry["error_after"] or {}
    return {
        **_identity(record, entry),
        **{key: entry[key] for key in ("status", "reason", "kernel", "jit_seconds", "flops", "bytes", "converged")},
        **_statistics(entry["samples"], _confidence(record)),
        **_throughput(entry),
        "minimum": min(entry["samples"], default=None),
        "n_outliers": int(outliers(entry["samples"]).sum()),
        "error_before": before.get("relative_l2"),
        "error_after": after.get("relative_l2"),
        "plain_before": before.get("plain_relative_l2"),
        "plain_after": after.get("plain_relative_l2"),
        "limit_before": before.get("limit_relative_l2"),
        "limit_after": after.get("limit_relative_l2"),
        **(entry["memory"] or {}),
        "timeline": json.dumps(entry["timeline"]) if entry.get("timeline") else "",
        "log": record["log"],
    }


def _ceiling_row(record: dict, entry: dict) -> dict:
    return {
        **_source(record),
        **{key: entry[key] for key in ("name", "unit", "status", "reason")},
        **_statistics(entry["samples"], _confidence(record)),
        "maximum": max(entry["samples"], default=None),
        "samples": json.dumps(entry["samples"]),
        "log": record["log"],
    }


def _confidence(record: dict) -> float:
    return record.get("protocol", {}).get("confidence", CONFIDENCE)


def _statistics(samples: list[float], confidence: float) -> dict:
    counted = {"n": len(samples), "confidence": confidence}
    return {**counted, **(median_interval(samples, confidence)._asdict() if samples else {})}


def _throughput(entry: dict) -> dict:
    if not entry["samples"]:
        return {}
    seconds = float(np.median(entry["samples"]))
    return {"gflops": entry["flops"] / seconds / 1e9, "gbs": entry["bytes"] / seconds / 1e9}
