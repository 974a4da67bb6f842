"""Roofline: what the layout could do at best, measured, and where every method and workload stands under it.

After S. Williams, A. Waterman and D. Patterson, "Roofline: an insightful visual performance model", CACM 52 (2009).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from streaming_attention import models
from streaming_attention.campaign.aggregate import LAYOUT, Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.axes import axis_of_values, plain_log, plot
from streaming_attention.campaign.figures.data import (
    SHAPE,
    Drawn,
    Options,
    estimate,
    estimate_ceilings,
    panels,
    passed,
    representatives,
    stack,
    titled,
)
from streaming_attention.campaign.figures.layouts import narrowest_and_widest, on_layout
from streaming_attention.campaign.figures.page import Page, empty, legend_of, notes_of, panel_title
from streaming_attention.campaign.figures.quantities import workload_of
from streaming_attention.campaign.words import say_layout, say_number

TITLE = FIGURES["roofline"]
EXPLANATION = """Exact FLOPs of a workload over its time, against its FLOPs per byte that must move. The roof is
measured on the same layout: BLAS matrix product and read bandwidth, with their intervals; for bf16 a second one, dot
products in registers. One query sits on the memory side, prefill moves to the compute side as T grows. A point above
the slope was served from a cache."""
COMPUTE = "gemm_fp32"
COMPUTE_BF16 = "dot_bf16"
"""The roof of points in bf16: no BLAS here multiplies it, so it is the peak of dot products in registers."""
MEMORY = ("read", "triad")
"""The bandwidth under which a layout's roof slopes: the first of these that it has."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """GFLOP/s over FLOP/byte, a panel for the narrowest and the widest layout; a point per workload, method and T."""
    frame = representatives(passed(tables))
    roofs = _roofs(tables, [COMPUTE, COMPUTE_BF16] if (frame["dtype"] == "bf16").any() else [COMPUTE])
    shared = roofs[list(LAYOUT)].drop_duplicates().merge(frame[list(LAYOUT)].drop_duplicates())
    shown = [_rows(tables, frame, roofs, layout, options) for layout in narrowest_and_widest(shared)]
    if not shown:
        return empty(TITLE, "no layout with passed ceilings and a passed method in this campaign")
    rows = stack(shown)
    marks = style.marks_of(rows.loc[rows["method"] != "", "method"])
    page = Page(TITLE, EXPLANATION, len(shown), height=3.9)
    for axis, some in zip(page.axes, shown, strict=True):
        _draw_panel(axis, some, rows, marks)
    return Drawn(page.finish(legend_of(rows, marks), notes_of(rows)), rows)


def _roofs(tables: Tables, flats: list[str]) -> pd.DataFrame:
    """The ceilings of the layouts that have a slope and a flat roof."""
    slopes = estimate_ceilings(tables, MEMORY, "bandwidth")
    best = [rows[rows["label"] == next(name for name in MEMORY if name in set(rows["label"]))]
            for _, rows in slopes.groupby(list(LAYOUT))]  # fmt: skip
    flat = estimate_ceilings(tables, flats, "compute")
    both = stack(best).merge(flat.loc[flat["label"] == COMPUTE, list(LAYOUT)])
    return stack([both, flat.merge(both[list(LAYOUT)])])


def _rows(tables: Tables, frame: pd.DataFrame, roofs: pd.DataFrame, layout: dict, options: Options) -> pd.DataFrame:
    name = say_layout(layout)
    shown = [on_layout(roofs, layout).assign(panel=name)]
    for panel in panels(on_layout(frame, layout)):
        title = titled(panel.title, name)
        times = panel.published(options)
        times = times[(times["ranks"] == layout["ranks"]) & (times["threads"] == layout["threads"])]
        times = times[times["keys"].isin(panel.frame["keys"])]
        shown += [estimate(tables, panel.frame, "performance", title), estimate(tables, times, "performance", title)]
    rows = stack(shown)
    return rows.assign(intensity=[_intensity(row) for row in rows.to_dict("records")])


def _intensity(row: dict) -> float:
    return models.intensity(workload_of(row)) if row["quantity"] == "performance" else np.nan


def _draw_panel(axis: Axes, rows: pd.DataFrame, every: pd.DataFrame, marks: dict[str, style.Mark]) -> None:
    points = rows[rows["quantity"] == "performance"]
    for (source, method), some in _series(points):
        some = some.sort_values("keys")
        plot(axis, some["intensity"], some, marks[method], open_=source == "published")
    axis.set_xscale("log", base=10)
    span = _span(every)
    _draw_roof(axis, rows, span)
    for workload, some in points.groupby("workload"):
        _name_workload(axis, workload, some)
    axis.set_xlim(*span)
    axis.set_xlabel("arithmetic intensity (FLOP/byte)")
    axis_of_values(axis, "performance (GFLOP/s)")
    axis.set_ylim(0.35 * points["value"].min(), 2.5 * max(points["value"].max(), _flats(rows)["value"].max()))
    plain_log(axis.xaxis)
    panel_title(axis, f"{rows['panel'].iloc[0]}: roof measured on this layout")


def _series(points: pd.DataFrame):
    """Points to be joined by a line: one workload, method and origin."""
    for key, some in points.groupby(["source", "method", "label", *SHAPE], sort=False):
        yield key[:2], some


def _span(rows: pd.DataFrame) -> tuple[float, float]:
    """Intensities from the leftmost point to the rightmost point or ridge, with room beside them."""
    slopes, flats = (rows[rows["quantity"] == name] for name in ("bandwidth", "compute"))
    ridge = slopes.merge(flats, on=list(LAYOUT)).eval("value_y / value_x").max()
    return rows["intensity"].min() / 2.5, max(rows["intensity"].max(), ridge) * 2.5


def _draw_roof(axis: Axes, rows: pd.DataFrame, span: tuple[float, float]) -> None:
    slope = rows[rows["quantity"] == "bandwidth"].iloc[0]
    flats = _flats(rows)
    x = np.geomspace(*span, 200)
    place = {"textcoords": "offset points", "size": 7.5, "color": style.INK}
    for _, flat in flats.iterrows():
        low, middle, high = (
            np.minimum(x * _bound(slope, bound), _bound(flat, bound)) for bound in ("low", "value", "high")
        )
        axis.fill_between(x, low, high, color="#bbbbbb", alpha=0.5, linewidth=0, zorder=1)
        axis.plot(x, middle, color=style.INK, linewidth=1.3, zorder=2)
        flops = say_number(round(flat["value"]))
        axis.annotate(f"{flat['label']} {flops} GFLOP/s", (span[1], flat["value"]), (-3, 4), ha="right", **place)
    middle = span[0] ** 0.35 * (flats["value"].min() / slope["value"]) ** 0.65
    rate = f"{slope['label']} {slope['value']:.1f} GB/s"
    axis.annotate(rate, (middle, middle * slope["value"]), (6, -3), ha="left", va="top", **place)


def _flats(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the compute ceilings."""
    return rows[rows["quantity"] == "compute"]


def _bound(row: pd.Series, bound: str) -> float:
    return row["value"] if np.isnan(row[bound]) else row[bound]


def _name_workload(axis: Axes, workload: str, some: pd.DataFrame) -> None:
    """The workload's name below its points."""
    lowest = some.loc[some["value"].idxmin()]
    place = {"textcoords": "offset points", "va": "top", "ha": "center"}
    at = lowest["intensity"], lowest["value"]
    axis.annotate(workload, at, (0, -8), **place, size=8, weight="bold", color=style.MUTED)
