"""The scaling model on machines that aren't here, with its assumptions; and the published table that it must match."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import Tables, frame_of, read_tables
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.scaling.extrapolation import answer, assumptions, questions
from streaming_attention.campaign.scaling.published_shape import findings, reproduce
from streaming_attention.campaign.tables import TABLES
from streaming_attention.campaign.tables.common import Table
from streaming_attention.campaign.words import say_length

EXTRAPOLATION = {
    "part": "str",
    "cluster": "str",
    "item": "str",
    "value": "str",
    "workload": "str",
    "keys": "Int64",
    "ranks": "Int64",
    "strategy": "str",
    **dict.fromkeys(("milliseconds", "model", "error", "serial_model", "serial_error"), "float64"),
    **dict.fromkeys(("compute", "exposed", "efficiency", "memory_gib"), "float64"),
    "record": "str",
}
"""Columns; ``part`` is published, finding, assumption or extrapolated, times are in ms."""
PUBLISHED = {
    "length": "T",
    "ranks": "ranks",
    "milliseconds": "published (ms)",
    "model": "bandwidth and rounds (ms)",
    "error": "error (%)",
    "serial_model": "with a serial share (ms)",
    "serial_error": "error (%)",
}
ASSUMED = {"cluster": "cluster", "item": "what", "value": "assumed"}
BEYOND = {
    "cluster": "cluster",
    "workload": "workload",
    "length": "T",
    "ranks": "sockets",
    "strategy": "strategy",
    "model": "time (ms)",
    "compute": "computing (ms)",
    "exposed": "waiting for messages (ms)",
    "efficiency": "efficiency (%)",
    "memory_gib": "memory of a rank (GiB)",
}
EXPLANATION = """The published times of one query over 1 to 16 ranks, and what the model makes of them from that
cluster's own times on one rank: first bandwidth and rounds of merging alone, then with a share of the time that doesn't
shrink."""
BELOW = """What the model expects of machines that aren't here, one rank a socket. Nothing of this is measured.
Efficiency is relative to the fewest sockets whose memory holds the problem; points without a time don't fit."""


def tabulate(folder: Folder) -> Table:
    """The table of a campaign; only the kernels' efficiency depends on what it measured."""
    frame = extrapolate(read_tables(folder.path / "tables"))
    shown = frame.assign(length=pd.Series([say_length(keys) for keys in frame["keys"].fillna(0)], dtype="str"))
    parts = {part: shown[shown["part"] == part] for part in ("published", "finding", "assumption", "extrapolated")}
    percent = "{:+.0f}".format
    errors = {"error": percent, "serial_error": percent}
    page = html.page(
        TABLES["extrapolated"],
        html.heading("The published table"),
        html.paragraph(EXPLANATION),
        html.table(parts["published"], PUBLISHED, errors),
        html.table(parts["finding"], {"value": "what the models say of it"}),
        html.heading("Beyond"),
        html.paragraph(BELOW),
        html.table(parts["extrapolated"], BEYOND, {"efficiency": "{:.0f}".format}),
        html.heading("Assumptions"),
        html.table(parts["assumption"], ASSUMED),
    )
    return Table(frame, page)


def extrapolate(tables: Tables) -> pd.DataFrame:
    """All parts as one table; columns are :data:`EXTRAPOLATION`."""
    table = reproduce()
    published = [{"part": "published", "workload": "query", **row} for row in table.to_dict("records")]
    found = [{"part": "finding", "value": text} for text in findings(table)]
    assumed = [
        {"part": "assumption", "cluster": cluster, "item": item, "value": value}
        for cluster, item, value in assumptions(tables)
    ]
    return frame_of([*published, *found, *assumed, *_beyond(tables)], EXTRAPOLATION)


def _beyond(tables: Tables) -> Iterator[dict]:
    first: dict[tuple, float] = {}
    for cluster, workload, layout in questions():
        row = {"part": "extrapolated", "cluster": cluster.name, "workload": workload.name}
        row |= {"keys": workload.keys, "ranks": layout.ranks}
        found = answer(tables, cluster, workload, layout)
        if found is None:
            yield row | {"strategy": "doesn't fit the memory"}
            continue
        strategy, cost = found
        spent = first.setdefault((cluster.name, workload.name, workload.keys), cost.seconds * layout.ranks)
        yield row | {
            "strategy": strategy,
            "model": 1e3 * cost.seconds,
            "compute": 1e3 * cost.compute_seconds,
            "exposed": 1e3 * cost.exposed_seconds,
            "efficiency": 100 * spent / (cost.seconds * layout.ranks),
            "memory_gib": cost.memory_bytes / 2**30,
        }
