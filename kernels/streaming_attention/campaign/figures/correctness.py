"""Error of every method against float64, before and after timing, with the plain implementation's and the limit."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.axes import axis_of_keys, axis_of_values
from streaming_attention.campaign.figures.data import (
    Drawn,
    Options,
    estimate,
    representatives,
    stack,
    summary_rows,
)
from streaming_attention.campaign.figures.page import Page, empty, legend_of, panel_title

TITLE = FIGURES["correctness"]
EXPLANATION = """Relative L2 error against attention in float64, on fresh inputs before and again after timing: the
worst over all layouts and repeats. Lines are the error of the textbook in the same precision and the limit that
follows from it; a method above the limit is incorrect and is not timed."""
WHEN = {"error_before": "left", "error_after": "right"}
"""Which half of the marker is filled before and after timing."""
YARDSTICKS = {"plain_before": "plain", "limit_before": "limit"}
SMALLEST = 1e-9
"""An error below this, exact agreement included, is drawn here: the axis is logarithmic."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Relative L2 error over T, a panel per workload; of all shapes, layouts and repeats the worst."""
    frame = summary_rows(tables)
    frame = representatives(frame[frame["status"].isin(("passed", "incorrect")) & frame["error_before"].notna()])
    shown = [_rows(tables, some) for _, some in frame.groupby(["workload", "dtype"])]
    if not shown:
        return empty(TITLE, "no method was examined in this campaign")
    rows = stack(shown)
    examined = rows[rows["quantity"].isin(WHEN)]
    marks = style.marks_of(examined["method"])
    page = Page(TITLE, EXPLANATION, len(shown))
    for axis, some in zip(page.axes, shown, strict=True):
        _draw_panel(axis, some, marks)
    handles = legend_of(examined, marks, line=False)
    return Drawn(page.finish(handles, _notes(rows)), rows)


def _rows(tables: Tables, frame: pd.DataFrame) -> pd.DataFrame:
    title = f"{frame['workload'].iloc[0]}: {frame['dtype'].iloc[0]}, all shapes and layouts"
    errors = [(quantity, _worst(frame, quantity, ["keys", "label"])) for quantity in WHEN]
    yardsticks = [(quantity, _worst(frame, quantity, ["keys"])) for quantity in YARDSTICKS]
    return stack(estimate(tables, some, quantity, title) for quantity, some in errors + yardsticks)


def _worst(frame: pd.DataFrame, quantity: str, key: list[str]) -> pd.DataFrame:
    """Of every group the record with the largest value."""
    frame = frame[frame[quantity].notna()]
    return frame.loc[frame.groupby(key)[quantity].idxmax()] if len(frame) else frame


def _draw_panel(axis: Axes, rows: pd.DataFrame, marks: dict[str, style.Mark]) -> None:
    methods = [name for name in marks if name in set(rows["method"])]
    for (quantity, method), some in rows[rows["quantity"].isin(WHEN)].groupby(["quantity", "method"], sort=False):
        spread = 1.0 + 0.07 * (methods.index(method) - (len(methods) - 1) / 2)
        side = 0.985 if quantity == "error_before" else 1.015
        _draw_errors(axis, some, marks[method], WHEN[quantity], spread * side)
    for quantity, label in YARDSTICKS.items():
        some = rows[rows["quantity"] == quantity].sort_values("keys")
        _draw_yardstick(axis, some, label, solid=quantity == "limit_before")
    panel_title(axis, rows["panel"].iloc[0])
    axis_of_keys(axis, rows["keys"])
    axis_of_values(axis, "relative L2 error")


def _draw_errors(axis: Axes, some: pd.DataFrame, mark: style.Mark, side: str, shift: float) -> None:
    look = {"color": mark.color, "marker": mark.marker, "linestyle": "none", "fillstyle": side, "zorder": 3}
    axis.plot(some["keys"] * shift, some["value"].clip(lower=SMALLEST), markerfacecoloralt="white", **look)
    wrong = some[some["status"] == "incorrect"]
    axis.plot(wrong["keys"] * shift, wrong["value"], "x", color="#b00020", markersize=10, markeredgewidth=1.8, zorder=4)


def _draw_yardstick(axis: Axes, some: pd.DataFrame, label: str, solid: bool) -> None:
    line = "-" if solid else (0, (6, 3))
    ends = [some["keys"].iloc[0] / 1.3, *some["keys"], some["keys"].iloc[-1] * 1.3]
    values = [some["value"].iloc[0], *some["value"], some["value"].iloc[-1]]
    axis.plot(ends, values, color=style.MUTED, linewidth=1.0, linestyle=line, zorder=1.5)
    place = {"textcoords": "offset points", "size": 7.5, "color": style.MUTED, "va": "center"}
    axis.annotate(label, (ends[-1], values[-1]), (3, 0), **place)


def _notes(rows: pd.DataFrame) -> list[Line2D]:
    grey = {"color": style.MUTED, "marker": "o", "linestyle": "none", "markerfacecoloralt": "white"}
    notes = [
        Line2D([], [], label="left half filled: before timing", fillstyle="left", **grey),
        Line2D([], [], label="right half filled: after timing", fillstyle="right", **grey),
    ]
    if (rows["status"] == "incorrect").any():
        cross = {"color": "#b00020", "marker": "x", "linestyle": "none", "markeredgewidth": 1.8}
        notes.append(Line2D([], [], label="incorrect, not timed", **cross))
    return notes
