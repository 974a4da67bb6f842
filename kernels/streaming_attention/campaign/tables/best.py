"""Which method is fastest at each sequence length, by how much, and how sure that is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import LAYOUT, WORKLOAD, Tables, frame_of, read_tables
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.statistics import pooled_interval, pooled_ratio_interval
from streaming_attention.campaign.tables import TABLES
from streaming_attention.campaign.tables.common import Table, described

CLASSES = ("one worker", "threads", "ranks", "ranks × threads")
"""How a layout reaches its workers."""

BEST = {
    **WORKLOAD,
    "class": "str",
    **LAYOUT,
    "label": "str",
    **dict.fromkeys(("milliseconds", "low", "high"), "float64"),
    "runner_up": "str",
    **dict.fromkeys(("ratio", "ratio_low", "ratio_high"), "float64"),
    "clear": "boolean",
    "record": "str",
    "record_digest": "str",
}
COLUMNS = {
    "workload": "workload",
    "length": "T",
    "shape": "shape",
    "class": "workers by",
    "layout": "layout",
    "label": "method",
    "milliseconds": "time (ms)",
    "interval": "interval",
    "runner_up": "runner-up",
    "ratio": "takes longer by",
    "ratio_interval": "interval",
    "clear": "clear",
    "record": "records",
}
"""Columns of the page with their headings."""
EXPLANATION = """The fastest method of each way to reach workers, with its layout and the bootstrap interval of its
median time. The runner-up is the best other method of the same records; it takes longer by the given factor, which is
taken inside each record, and the difference is clear if the interval of the factor lies above 1."""


def tabulate(folder: Folder) -> Table:
    """The table of a campaign, from its aggregated tables."""
    frame = best_methods(read_tables(folder.path / "tables"))
    shown = described(frame).assign(
        interval=_bracketed(frame, "low", "high"),
        ratio_interval=_bracketed(frame, "ratio_low", "ratio_high"),
        clear=frame["clear"].map({True: "yes", False: "no"}),
        record=frame["record"].str.replace(" ", "\n"),
    )
    formats = {"milliseconds": html.number(4), "ratio": html.number(3)}
    page = html.page(TABLES["best"], html.paragraph(EXPLANATION), html.table(shown, COLUMNS, formats))
    return Table(frame, page)


def _bracketed(frame: pd.DataFrame, low: str, high: str) -> pd.Series:
    """Both bounds of an interval as one text, empty where it is unknown."""
    write = html.number(4)
    pairs = zip(frame[low], frame[high], strict=True)
    return pd.Series([f"[{write(a)}, {write(b)}]" if np.isfinite(a + b) else "" for a, b in pairs], dtype="str")


def best_methods(tables: Tables) -> pd.DataFrame:
    """The fastest method and layout of each class per workload and T; columns are :data:`BEST`.

    ``ratio`` is the runner-up's time over the winner's, taken inside each record and pooled over repeats; ``clear``
    says whether its interval lies above 1. Where no other method is in the same records they stay empty.
    """
    passed = tables.summary[tables.summary["status"] == "passed"]
    order = 2 * (passed["ranks"] > 1) + (passed["threads"] > 1)
    groups = passed.groupby([*WORKLOAD, order.rename("class")])
    return frame_of((_row(tables, CLASSES[key[-1]], rows) for key, rows in groups), BEST)


def _row(tables: Tables, layout_class: str, rows: pd.DataFrame) -> dict:
    contenders = [group for _, group in rows.groupby([*LAYOUT, "label"])]
    winner = min(contenders, key=lambda group: np.median([np.median(some) for some in _samples(tables, group)]))
    first = winner.iloc[0]
    interval = pooled_interval(_samples(tables, winner), first["confidence"])
    times = dict(zip(("milliseconds", "low", "high"), (1e3 * value for value in interval), strict=True))
    joined = {name: " ".join(winner[name]) for name in ("record", "record_digest")}
    identity = first[[*WORKLOAD, *LAYOUT, "label"]].to_dict()
    return {**identity, "class": layout_class, **times, **_runner_up(tables, rows, winner), **joined}


def _runner_up(tables: Tables, rows: pd.DataFrame, winner: pd.DataFrame) -> dict:
    """The best label of another method in the winner's records, with the ratio of their times."""
    first = winner.iloc[0]
    others = rows[rows["record"].isin(winner["record"]) & (rows["method"] != first["method"])]
    ratios = {
        label: pooled_ratio_interval(_pairs(tables, group, first["label"]), first["confidence"])
        for label, group in others.groupby("label")
    }
    if not ratios:
        return {}
    label, ratio = min(ratios.items(), key=lambda item: item[1].median)
    bounds = dict(zip(("ratio", "ratio_low", "ratio_high"), ratio, strict=True))
    return {"runner_up": label, **bounds, "clear": ratio.low > 1.0}


def _samples(tables: Tables, rows: pd.DataFrame) -> list[np.ndarray]:
    return [tables.samples(row.record, row.label) for row in rows.itertuples()]


def _pairs(tables: Tables, rows: pd.DataFrame, winner: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(tables.samples(row.record, row.label), tables.samples(row.record, winner)) for row in rows.itertuples()]
