"""Threads against ranks: the same number of workers reached by threads of one process, by MPI ranks, or by both."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.axes import axis_of_counts, axis_of_values, guide, plot
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
)
from streaming_attention.campaign.figures.page import Page, empty, handle, notes_of, panel_title
from streaming_attention.campaign.words import say_length

TITLE = FIGURES["threads_ranks"]
EXPLANATION = """Time of one call over workers (ranks × threads). The dashed guide is the time on one worker divided
by the number of workers. Of several layouts with as many workers reached in the same way the fastest is shown, and
the fastest split of all is named. Bars are bootstrap intervals of the median."""
MODES = {"threads": "threads of one process", "ranks": "ranks of one thread", "hybrid": "ranks × threads, the fastest"}
LENGTHS = 3
"""At most so many T a workload: the shortest, the longest and one between."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Run time over workers: a row of panels per workload and method, a column per T, a line per way to the workers."""
    lines = [line for panel in panels(representatives(passed(tables))) for line in _lines(tables, panel, options)]
    if not lines:
        return empty(TITLE, "no passed measurement on more than one worker in this campaign")
    cells = [cell for line in lines for cell in line]
    page = Page.of_lines(TITLE, EXPLANATION, lines)
    for axis, rows in zip(page.axes, cells, strict=True):
        _draw_panel(axis, rows)
    rows = stack(cells)
    modes = set(_mode(rows))
    handles = [handle(text, style.MARKS[mode], line=mode != "hybrid") for mode, text in MODES.items() if mode in modes]
    return Drawn(page.finish(handles, notes_of(rows)), rows)


def _lines(tables: Tables, panel: Panel, options: Options) -> list[list[pd.DataFrame]]:
    """For every method that runs over ranks, or for all if none does, its rows at each T."""
    frame = panel.frame.assign(workers=panel.frame["ranks"] * panel.frame["threads"])
    spread = frame.loc[frame["ranks"] > 1, "method"].unique()
    frame = frame[frame["method"].isin(spread)] if len(spread) else frame
    lines = []
    for method, some in frame.groupby("method", sort=False):
        cells = [some[some["keys"] == keys] for keys in _lengths(some)]
        lines.append([_rows(tables, panel, method, cell, options) for cell in cells])
    return [line for line in lines if line]


def _lengths(frame: pd.DataFrame) -> list[int]:
    """Up to three T with several numbers of workers; if any has threads and ranks, only such."""
    counts = frame.groupby("keys")[["workers", "threads", "ranks"]].nunique()
    counts = counts[counts["workers"] > 1]
    both = counts[(counts["threads"] > 1) & (counts["ranks"] > 1)]
    lengths = sorted((both if len(both) else counts).index)
    middle = lengths[len(lengths) // 2 : len(lengths) // 2 + 1]
    return lengths if len(lengths) <= LENGTHS else [lengths[0], *middle, lengths[-1]]


def _rows(tables: Tables, panel: Panel, method: str, some: pd.DataFrame, options: Options) -> pd.DataFrame:
    keys = some["keys"].iloc[0]
    title = titled(panel.title, method, f"T = {say_length(keys)}")
    times = panel.published(options)
    times = times[(times["keys"] == keys) & (times["method"] == method)]
    return stack([_fastest(estimate(tables, frame, "time", title)) for frame in (some, times)])


def _mode(rows: pd.DataFrame) -> pd.Series:
    hybrid = (rows["ranks"] > 1) & (rows["threads"] > 1)
    return rows["ranks"].gt(1).map({True: "ranks", False: "threads"}).mask(hybrid, "hybrid")


def _fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of several layouts with as many workers, reached the same way, the fastest."""
    if rows.empty:
        return rows
    workers = (rows["ranks"] * rows["threads"]).rename("workers")
    return rows.loc[rows.groupby([_mode(rows).rename("mode"), workers])["value"].idxmin()]


def _draw_panel(axis: Axes, rows: pd.DataFrame) -> None:
    rows = rows.assign(workers=(rows["ranks"] * rows["threads"]).astype(int), mode=_mode(rows))
    for source in ("measured", "published"):
        for mode in MODES:
            _draw_line(axis, rows[rows["source"] == source], mode)
    _name_best_split(axis, rows)
    panel_title(axis, rows["panel"].iloc[0])
    axis_of_counts(axis, rows["workers"], "workers (ranks × threads)")
    axis_of_values(axis, "run time (ms)")
    _ideal(axis, rows[rows["source"] == "measured"])


def _draw_line(axis: Axes, rows: pd.DataFrame, mode: str) -> None:
    """One way to reach the workers; the single worker starts the line of the ranks as well."""
    some = rows[rows["mode"] == mode]
    if some.empty:
        return
    if mode == "ranks":
        some = pd.concat([rows[rows["workers"] == 1], some])
    some = some.sort_values("workers")
    is_published = some["source"].iloc[0] == "published"
    plot(axis, some["workers"], some, style.MARKS[mode], line=mode != "hybrid", open_=is_published)


def _name_best_split(axis: Axes, rows: pd.DataFrame) -> None:
    """Ranks × threads of the fastest hybrid, ours before the published one."""
    hybrid = rows[rows["mode"] == "hybrid"].sort_values(["source", "value"])
    if len(hybrid):
        best = hybrid.iloc[0]
        place = {"textcoords": "offset points", "ha": "center", "va": "top", "size": 7.5, "color": style.INK}
        axis.annotate(f"{best['ranks']} × {best['threads']}", (best["workers"], best["value"]), (0, -6), **place)


def _ideal(axis: Axes, rows: pd.DataFrame) -> None:
    single = rows[rows["workers"] == 1]
    if len(single):
        x = [1, int(rows["workers"].max())]
        place = {"xytext": (-5, 1), "ha": "right", "va": "bottom"}
        guide(axis, x, [single["value"].iloc[0] / count for count in x], "ideal", **place)
