"""Predicted against measured: what the scaling model said of every point over ranks, and how long it took."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import METHOD, Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.axes import axis_of_values, plain_log
from streaming_attention.campaign.figures.data import Drawn, Options, estimate, passed, sidecar, stack
from streaming_attention.campaign.figures.layouts import PLACE
from streaming_attention.campaign.figures.over_ranks import predictions
from streaming_attention.campaign.figures.page import Page, empty, handle, panel_title

TITLE = FIGURES["predictions"]
EXPLANATION = """Each marker is a point over several ranks: across, the measured time of a call with its bootstrap
interval; up, what the scaling model says, which has seen the layout's ceilings and the method on one rank but never
this point. On the line both agree; the band is 25 % to either side."""
BAND = 1.25
_POINT = ["workload", "heads", "kv_heads", "queries", "keys", "head_dim", "causal", "dtype", "batch", "threads"]


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Predicted over measured time, a panel per workload, a series per label."""
    frame = passed(tables)
    frame = frame[frame["ranks"] > 1]
    cells = [_rows(tables, name, some) for name, some in frame.groupby("workload")]
    cells = [rows for rows in cells if len(rows)]
    if not cells:
        return empty(
            TITLE, "no point over ranks that has the ceilings of its layout and its method on one rank beside it"
        )
    rows = stack(cells)
    marks = style.marks_of(rows["label"])
    page = Page(TITLE, EXPLANATION, len(cells), height=4.2)
    for axis, some in zip(page.axes, cells, strict=True):
        _draw_panel(axis, some, marks)
    return Drawn(page.finish([handle(label, mark, line=False) for label, mark in marks.items()]), rows)


def _rows(tables: Tables, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Measured and predicted rows of the points that the model can say something of."""
    measured = estimate(tables, frame, "time", f"{name}: all shapes, lengths and layouts over ranks")
    model = predictions(tables, measured)
    if model.empty:
        return sidecar([])
    there = model[[*_POINT, *PLACE, *METHOD]].drop_duplicates()
    return stack([measured.merge(there, on=list(there.columns)), model])


def _draw_panel(axis: Axes, rows: pd.DataFrame, marks: dict[str, style.Mark]) -> None:
    key = [*_POINT, *PLACE, *METHOD]
    pairs = rows[rows["source"] == "measured"].merge(rows.loc[rows["source"] == "model", [*key, "value"]], on=key)
    for label, some in pairs.groupby("label"):
        below, above = some["value_x"] - some["low"], some["high"] - some["value_x"]
        mark = marks[label]
        look = {"color": mark.color, "marker": mark.marker, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axis.errorbar(some["value_x"], some["value_y"], xerr=[below, above], linestyle="none", capsize=2, **look)
    panel_title(axis, rows["panel"].iloc[0])
    axis.set_xscale("log")
    axis_of_values(axis, "predicted (ms)")
    axis.set_xlabel("measured (ms)")
    plain_log(axis.xaxis)
    _diagonal(axis, pairs)


def _diagonal(axis: Axes, pairs: pd.DataFrame) -> None:
    ends = [pairs[["value_x", "value_y"]].min(axis=None) / 1.3, pairs[["value_x", "value_y"]].max(axis=None) * 1.3]
    axis.fill_between(ends, [end / BAND for end in ends], [end * BAND for end in ends], color="#eeeeee", zorder=0)
    axis.plot(ends, ends, color="#999999", linewidth=0.9, zorder=1)
    axis.set_xlim(*ends)
    axis.set_ylim(*ends)
