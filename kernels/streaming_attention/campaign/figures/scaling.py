"""Run time over sequence length by method, on a few layouts, with the slope that the workload's work grows with."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import LAYOUT, Tables
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
)
from streaming_attention.campaign.figures.layouts import narrowest_and_widest, on_layout
from streaming_attention.campaign.figures.page import Page, empty, legend_of, notes_of, panel_title
from streaming_attention.campaign.words import say_layout

TITLE = FIGURES["scaling"]
EXPLANATION = """Time of one call over the number of keys, both axes logarithmic. Dashed guides have the slope with
which the exact work of the workload grows. Bars are bootstrap intervals of the median over samples and repeats."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Run time over T, both logarithmic: rows of panels are workloads, columns the narrowest and widest layouts."""
    frame = representatives(passed(tables))
    lines = [_line(tables, panel, options) for panel in with_lengths(panels(frame))]
    if not lines:
        return empty(TITLE, "no passed measurement of run time in this campaign")
    rows = stack(rows for line in lines for rows, _ in line)
    marks = style.marks_of(rows["method"])
    page = Page.of_lines(TITLE, EXPLANATION, lines)
    for axis, (some, exponent) in zip(page.axes, (cell for line in lines for cell in line), strict=True):
        _draw_panel(axis, some, marks, exponent)
    return Drawn(page.finish(legend_of(rows, marks), notes_of(rows)), rows)


def _layouts(frame: pd.DataFrame) -> list[dict]:
    """One worker, the most threads of one process, the most workers over ranks: those of them with several T."""
    lengths = frame.groupby(list(LAYOUT))["keys"].transform("nunique")
    frame = frame[lengths > 1] if (lengths > 1).any() else frame
    single, spread = frame[frame["ranks"] == 1], frame[frame["ranks"] > 1]
    return [*narrowest_and_widest(single), *narrowest_and_widest(spread)[-1:]]


def _line(tables: Tables, panel: Panel, options: Options) -> list[tuple[pd.DataFrame, int]]:
    """The rows of a workload on each of the layouts, and the exponent of its work."""
    shown = []
    for layout in _layouts(panel.frame):
        title = titled(panel.title, say_layout(layout))
        here = on_layout(panel.frame, layout)
        times = panel.published(options)
        times = times[(times["ranks"] == layout["ranks"]) & (times["threads"] == layout["threads"])]
        rows = stack([estimate(tables, here, "time", title), estimate(tables, times, "time", title)])
        shown.append((rows, 2 if panel.square else 1))
    return shown


def _draw_panel(axis: Axes, rows: pd.DataFrame, marks: dict[str, style.Mark], exponent: int) -> None:
    for (source, method, _), some in rows.groupby(["source", "method", "label"], sort=False):
        some = some.sort_values("keys")
        plot(axis, some["keys"], some, marks[method], open_=source == "published")
    panel_title(axis, rows["panel"].iloc[0])
    axis_of_keys(axis, rows["keys"])
    axis_of_values(axis, "run time (ms)")
    _slope(axis, rows[rows["source"] == "measured"], exponent)


def _slope(axis: Axes, ours: pd.DataFrame, exponent: int) -> None:
    """A guide through the fastest point of the longest T, drawn a little below it."""
    longest = int(ours["keys"].max())
    shortest = int(ours["keys"].min())
    if shortest == longest:
        return
    end = 0.6 * ours.loc[ours["keys"] == longest, "value"].min()
    x = [shortest, longest]
    y = [end * (length / longest) ** exponent for length in x]
    guide(axis, x, y, f"∝ T{'²' if exponent == 2 else ''}")
