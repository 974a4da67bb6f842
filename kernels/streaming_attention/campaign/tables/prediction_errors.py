"""Predicted against measured: every point over ranks that the scaling model could say something of, with its error."""

from __future__ import annotations

import pandas as pd

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import LAYOUT, METHOD, WORKLOAD, Tables, frame_of, read_tables
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.scaling.prediction import model_of
from streaming_attention.campaign.statistics import pooled_interval
from streaming_attention.campaign.tables import TABLES
from streaming_attention.campaign.tables.common import Table, described

PREDICTIONS = {
    **WORKLOAD,
    **LAYOUT,
    "label": "str",
    "strategy": "str",
    **dict.fromkeys(("milliseconds", "low", "high", "predicted", "error"), "float64"),
    **dict.fromkeys(("predicted_compute", "predicted_exposed", "compute", "communication", "efficiency"), "float64"),
    **dict.fromkeys(("bytes_sent", "messages"), "Int64"),
    **dict.fromkeys(("record", "reference", "network"), "str"),
}
COLUMNS = {
    "workload": "workload",
    "length": "T",
    "shape": "shape",
    "layout": "layout",
    "label": "method",
    "strategy": "strategy",
    "milliseconds": "measured (ms)",
    "predicted": "predicted (ms)",
    "error": "error (%)",
    "compute": "computing (ms)",
    "predicted_compute": "predicted",
    "communication": "communicating (ms)",
    "predicted_exposed": "predicted",
    "record": "records",
}
EXPLANATION = """What the scaling model says of every point over several ranks beside what was measured. It has seen the
layout's ceilings (STREAM, GEMM, network) and the method on one rank, but no point over ranks. The error is that of the
predicted time, in percent of the measured one."""


def tabulate(folder: Folder) -> Table:
    """The table of a campaign, from its aggregated tables."""
    frame = compare_predictions(read_tables(folder.path / "tables"))
    shown = described(frame).assign(record=frame["record"].str.replace(" ", "\n"))
    numbers = ("milliseconds", "predicted", "compute", "predicted_compute", "communication", "predicted_exposed")
    formats = dict.fromkeys(numbers, html.number(4)) | {"error": "{:+.1f}".format}
    parts = [html.paragraph(EXPLANATION), html.paragraph(summary_of(frame)), html.table(shown, COLUMNS, formats)]
    return Table(frame, html.page(TABLES["prediction_errors"], *parts))


def compare_predictions(tables: Tables) -> pd.DataFrame:
    """A row per point over ranks and label that the model can predict; columns are :data:`PREDICTIONS`, times in ms."""
    passed = tables.summary[(tables.summary["status"] == "passed") & (tables.summary["ranks"] > 1)]
    rows = (_row(tables, some) for _, some in passed.groupby([*WORKLOAD, *LAYOUT, *METHOD]))
    return frame_of(filter(None, rows), PREDICTIONS)


def summary_of(frame: pd.DataFrame) -> str:
    """The size of the errors in one sentence."""
    if frame.empty:
        return "No point over ranks has the ceilings of its layout and its method on one rank beside it."
    sizes = frame["error"].abs()
    return (
        f"{len(frame)} points: the median error is {sizes.median():.1f} %, the largest {sizes.max():.1f} %; "
        f"{int((sizes <= 25).sum())} of them are within 25 %."
    )


def _row(tables: Tables, rows: pd.DataFrame) -> dict | None:
    first = rows.iloc[0].to_dict()
    prediction = model_of(tables).predict(first)
    if prediction is None:
        return None
    samples = [tables.samples(row.record, row.label) for row in rows.itertuples()]
    median, low, high = (1e3 * value for value in pooled_interval(samples, first["confidence"]))
    frame = tables.measurements
    spent = frame[frame["record"].isin(rows["record"]) & (frame["label"] == first["label"])]
    cost = prediction.cost
    return {
        **{name: first[name] for name in (*WORKLOAD, *LAYOUT, "label")},
        "strategy": prediction.strategy,
        "milliseconds": median,
        "low": low,
        "high": high,
        "predicted": 1e3 * cost.seconds,
        "error": 100 * (1e3 * cost.seconds / median - 1),
        "predicted_compute": 1e3 * cost.compute_seconds,
        "predicted_exposed": 1e3 * cost.exposed_seconds,
        "compute": 1e3 * spent["compute"].median(),
        "communication": 1e3 * spent["communication"].median(),
        "efficiency": prediction.efficiency,
        "bytes_sent": cost.bytes_sent,
        "messages": cost.messages,
        "record": " ".join(rows["record"]),
        "reference": prediction.reference,
        "network": prediction.network,
    }
