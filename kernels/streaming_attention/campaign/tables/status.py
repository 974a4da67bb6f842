"""What became of every planned point and method: none is ever silently absent."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import LAYOUT, WORKLOAD, frame_of, read_tables
from streaming_attention.campaign.folder import Folder, log_name
from streaming_attention.campaign.tables import TABLES
from streaming_attention.campaign.tables.common import Table, described

STATUS = {
    "point": "str",
    **WORKLOAD,
    **LAYOUT,
    "repeat": "int64",
    "label": "str",
    "status": "str",
    "reason": "str",
    "samples": "int64",
    "record": "str",
    "log": "str",
}
COLUMNS = {
    "workload": "workload",
    "length": "T",
    "shape": "shape",
    "layout": "layout",
    "repeat": "repeat",
    "label": "method",
    "status": "status",
    "reason": "reason",
    "samples": "samples",
    "record": "record",
    "log": "log",
}
"""Columns of the page with their headings."""
EXPLANATION = """Every planned point and method. Only passed methods have timings. A point is missing while it has no
record: it has not run yet, or its job failed and the log says why."""


def tabulate(folder: Folder) -> Table:
    """The table of a campaign, from its plan and its aggregated summary."""
    frame = point_statuses(folder.plan() or [], read_tables(folder.path / "tables").summary)
    counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items()) or "no points"
    words = html.paragraph(f"{counts}. {EXPLANATION}")
    return Table(frame, html.page(TABLES["status"], words, html.table(described(frame), COLUMNS, mark="status")))


def point_statuses(plan: list[dict[str, str]], summary: pd.DataFrame) -> pd.DataFrame:
    """Every point x method of the plan with what became of it; columns are :data:`STATUS`.

    Parameters
    ----------
    plan : list of dict
        Rows of ``plan.csv``.
    summary : DataFrame
        As :mod:`~streaming_attention.campaign.aggregate` makes it. A point without a record is ``missing``, unless the
        plan has found it infeasible.
    """
    known = {(row["record"], row["label"]): row for row in summary.to_dict("records")}
    points = ((point, label) for point in plan for label in _split(point["methods"]))
    return frame_of((_row(point, label, known.get((point["id"], label))) for point, label in points), STATUS)


def _row(point: dict[str, str], label: str, found: dict | None) -> dict:
    numbers = {name: _typed(point[name], kind) for name, kind in (WORKLOAD | LAYOUT).items()}
    row = {"point": point["id"], **numbers, "repeat": int(point["repeat"]), "label": label, "samples": 0}
    if found:
        made = {"status": found["status"], "reason": found["reason"], "samples": found["n"]}
        return row | made | {"record": f"records/{point['id']}.json", "log": log_name(found["log"])}
    refused = reasons(point).get(label)
    return row | {"status": "infeasible" if refused else "missing", "reason": refused or "no record yet"}


def reasons(point: dict[str, str]) -> dict[str, str]:
    """Reason by label, out of the plan's ``label: reason; label: reason``; a reason may hold semicolons itself."""
    text, labels = point["reasons"], _split(point["infeasible"])
    starts, at = [], 0
    for label in labels:
        at = text.index(f"{label}: ", at)
        starts.append(at)
        at += len(label) + 2
    spans = pairwise([*starts, len(text) + 2])
    return {label: text[begin + len(label) + 2 : end - 2] for label, (begin, end) in zip(labels, spans, strict=True)}


def _split(labels: str) -> list[str]:
    return labels.split("; ") if labels else []


def _typed(text: str, kind: str):
    return {"int64": int, "bool": lambda value: value == "True"}.get(kind, str)(text)
