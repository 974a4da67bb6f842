"""Peak memory by T and method, between what the tensors take, O(T d), and what the scores of a head take, O(T^2)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import LAYOUT, WORKLOAD, Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.axes import axis_of_keys, axis_of_values, guide, plot
from streaming_attention.campaign.figures.data import (
    Drawn,
    Options,
    Panel,
    estimate,
    panels,
    passed,
    representatives,
    stack,
    titled,
    with_lengths,
    without_record,
)
from streaming_attention.campaign.figures.layouts import on_layout
from streaming_attention.campaign.figures.page import Page, empty, legend_of, notes_of, panel_title
from streaming_attention.campaign.words import say_layout

TITLE = FIGURES["memory"]
EXPLANATION = """Peak memory of the rank that needs most while it holds a method's tensors and workspace, both axes
logarithmic. Dashed guides are exact sizes: all tensors grow with T d, a head's scores with queries × keys. Bars
span repeats."""
GUIDES = {"tensors": "Q, K, V, O\nO(T d)", "scores": "one head's scores\nO({})"}

FAR_BELOW = 10
"""A guide that is so many times below everything measured says nothing of it, and would press it together."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Peak memory of one rank over T, a panel per workload, on the layout with most points."""
    frame = representatives(passed(tables)).dropna(subset="peak_bytes")
    shown = [(panel, _rows(tables, panel)) for panel in with_lengths(panels(frame))]
    if not shown:
        return empty(TITLE, "no passed measurement of memory in this campaign")
    rows = stack([some for _, some in shown])
    marks = style.marks_of(rows.loc[rows["source"] == "measured", "method"])
    page = Page(TITLE, EXPLANATION, len(shown), height=3.6)
    for axis, (panel, some) in zip(page.axes, shown, strict=True):
        _draw_panel(axis, some, marks, panel.square)
    return Drawn(page.finish(legend_of(rows, marks), notes_of(rows)), rows)


def _rows(tables: Tables, panel: Panel) -> pd.DataFrame:
    layout = _layout(panel.frame)
    title = titled(panel.title, say_layout(layout))
    ours = estimate(tables, on_layout(panel.frame, layout), "peak_memory", title)
    guides = (_guide(tables, ours, quantity, title) for quantity in GUIDES)
    return stack([ours, *(some for some in guides if some["value"].max() > ours["value"].min() / FAR_BELOW)])


def _layout(frame: pd.DataFrame) -> dict:
    """The layout with most points, and of several such the narrowest."""
    points = frame.drop_duplicates([*LAYOUT, "keys", "label"]).groupby(list(LAYOUT)).size().reset_index(name="points")
    points["workers"] = points["ranks"] * points["threads"]
    ordered = points.sort_values(["points", "workers", *LAYOUT], ascending=[False, True, *[True] * len(LAYOUT)])
    return ordered[list(LAYOUT)].iloc[0].to_dict()


def _guide(tables: Tables, ours: pd.DataFrame, quantity: str, title: str) -> pd.DataFrame:
    lengths = ours.drop_duplicates(list(WORKLOAD))
    plain = {"source": "model", "method": "", "options": "", "label": quantity, "status": ""}
    rows = pd.DataFrame([without_record(row) | plain for row in lengths.to_dict("records")])
    return estimate(tables, rows, quantity, title)


def _draw_panel(axis: Axes, rows: pd.DataFrame, marks: dict[str, style.Mark], square: bool) -> None:
    for method, some in rows[rows["source"] == "measured"].groupby("method", sort=False):
        some = some.sort_values("keys")
        shift = 1.0 + 0.05 * (list(marks).index(method) - (len(marks) - 1) / 2)
        plot(axis, some["keys"] * shift, some, marks[method])
    panel_title(axis, rows["panel"].iloc[0])
    axis_of_keys(axis, rows["keys"])
    axis.set_yscale("log")
    axis.set_ylim(rows["value"].min() / 2, rows["value"].max() * 2)
    axis_of_values(axis, "peak memory of a rank (MiB)")
    guides = rows[rows["source"] == "model"].groupby("quantity")
    above = guides["value"].max().idxmax()
    for quantity, some in guides:
        label = GUIDES[quantity].format("T²" if square else "T")
        align = "bottom" if quantity == above else "top"
        guide(axis, some["keys"].tolist(), some["value"].tolist(), label, xytext=(12, 0), va=align)
