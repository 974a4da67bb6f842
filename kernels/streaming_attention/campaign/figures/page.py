"""The page of a figure: its header, its grid of panels with their titles, and its legend."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from streaming_attention.campaign import published
from streaming_attention.campaign.figures.data import Drawn, sidecar
from streaming_attention.campaign.figures.style import MUTED, Mark, styled

WIDTH = 10.0
"""Inches of a figure with several columns."""

NARROW = 6.5
"""Inches of a figure with a single column, unless its axis is long."""


class Page:
    """A figure with a header: title, explanation, legend; below it a grid of axes.

    Parameters
    ----------
    title, explanation : str
    panels : int
        Number of axes.
    columns : int, optional
        Axes beside each other; by default two, or three once there are more than four panels.
    width : float, optional
        Inches of the page; by default :data:`WIDTH`, less for a single panel.
    height : float
        Inches of a row of axes.
    """

    def __init__(self, title: str, explanation: str, panels: int, columns=None, width=None, height=3.3):
        columns = min(columns or (2 if panels <= 4 else 3), panels)
        width = width or (WIDTH if columns > 1 else NARROW)
        rows = math.ceil(panels / columns)
        self.figure = Figure(layout="constrained")
        FigureCanvasSVG(self.figure)
        self.width, self.axes_height = width, rows * height
        self.title, self.explanation = title, textwrap.wrap(explanation, int(width * 14.5))
        grid_axes = self.figure.subplots(rows, columns, squeeze=False)
        self.axes: list[Axes] = list(grid_axes.flat)
        for axis in self.axes[panels:]:
            axis.remove()
        del self.axes[panels:]

    @classmethod
    def of_lines(cls, title: str, explanation: str, lines: Sequence[Sequence]) -> Page:
        """A page with a row of axes for each line, some of them shorter; there is one of ``axes`` for every cell.

        Lines of one cell that follow each other share rows.
        """
        columns = max(len(line) for line in lines)
        lengths = _row_lengths([len(line) for line in lines], columns)
        page = cls(title, explanation, len(lengths) * columns, columns)
        filled = [column < length for length in lengths for column in range(columns)]
        for axis, full in zip(page.axes, filled, strict=True):
            if not full:
                axis.remove()
        page.axes = [axis for axis, full in zip(page.axes, filled, strict=True) if full]
        return page

    def finish(self, handles: Sequence[Line2D] = (), notes: Sequence[Line2D] = ()) -> Figure:
        """Write the header and settle the sizes; the figure is done.

        ``handles`` name the series; ``notes``, on a line of their own, what other signs mean.
        """
        text_top, line = 0.42, 0.175
        legend_top = text_top + line * len(self.explanation) + 0.06
        rows = [row for row in (*_wrap_legend(handles, self.width), list(notes)) if row]
        header = legend_top + _LEGEND_ROW * len(rows) + 0.05
        height = header + self.axes_height
        self.figure.set_size_inches(self.width, height)
        left = 0.12 / self.width
        self.figure.text(left, 1 - 0.12 / height, self.title, size=13, weight="bold", va="top")
        words = {"size": 8.5, "color": MUTED, "va": "top", "linespacing": 1.35}
        self.figure.text(left, 1 - text_top / height, "\n".join(self.explanation), **words)
        for number, row in enumerate(rows):
            self._legend_row(row, left, 1 - (legend_top + _LEGEND_ROW * number) / height)
        self.figure.get_layout_engine().set(rect=(0, 0, 1, 1 - header / height))
        return self.figure

    def _legend_row(self, row: list[Line2D], left: float, top: float) -> None:
        place = {"loc": "upper left", "bbox_to_anchor": (left, top), "ncols": len(row)}
        place = {"loc": "upper left", "bbox_to_anchor": (left, top), "ncols": len(row)}
        legend = self.figure.legend(handles=row, **place, **_LEGEND)
        legend.set_in_layout(False)


_LEGEND_ROW = 0.21

_LEGEND = {
    "fontsize": 8.5,
    "handlelength": 2.8,
    "handletextpad": 0.6,
    "columnspacing": 1.8,
    "borderaxespad": 0.0,
    "borderpad": 0.1,
}


def _wrap_legend(handles: Sequence[Line2D], width: float) -> list[list[Line2D]]:
    """Rows of legend entries, each as full as the page's width allows."""
    rows, used = [], math.inf
    for one in handles:
        needed = 0.072 * len(one.get_label()) + 0.65
        if used + needed > width - 0.2:
            rows.append([])
            used = 0.0
        rows[-1].append(one)
        used += needed
    return rows


@styled
def empty(title: str, message: str) -> Drawn:
    """A figure that says plainly that there is nothing to draw, and why; its sidecar has a header only."""
    page = Page(title, "", 1, height=1.6)
    page.axes[0].set_axis_off()
    page.axes[0].text(
        0.5, 0.5, message, ha="center", va="center", color=MUTED, size=10, transform=page.axes[0].transAxes
    )
    return Drawn(page.finish(), sidecar([]))


def handle(label: str, mark: Mark, *, line: bool = True, open_: bool = False) -> Line2D:
    """A legend entry that looks like :func:`plot`."""
    return Line2D(
        [],
        [],
        label=label,
        color=mark.color,
        marker=mark.marker,
        linestyle=((0, (1, 2)) if open_ else mark.line) if line else "none",
        markerfacecolor="white" if open_ else mark.color,
        markeredgecolor=mark.color if open_ else "white",
        markeredgewidth=1.1 if open_ else 0.6,
    )


def legend_of(rows: pd.DataFrame, marks: dict[str, Mark], key: str = "method", **look) -> list[Line2D]:
    """Legend entries of the measured series that rows hold, each under its label."""
    labels = rows[rows["source"] == "measured"].drop_duplicates([key, "label"]).groupby(key)["label"].agg(", ".join)
    return [handle(labels[name], mark, **look) for name, mark in marks.items() if name in labels.index]


def notes_of(rows: pd.DataFrame) -> list[Line2D]:
    """What the signs beside the measured points mean, as far as rows have any: published numbers, missing times."""
    notes = []
    if (rows["source"] == "published").any():
        notes.append(handle(f"open markers: published, {published.HARDWARE}", Mark(MUTED, "o", "-"), open_=True))
    if rows["value"].isna().any():
        cross = {"marker": "x", "color": MUTED, "linestyle": "none"}
        notes.append(Line2D([], [], label="no time: infeasible or not passed, see the status table", **cross))
    return notes


def panel_title(axis: Axes, text: str) -> None:
    """Title of a panel: what stands before the first colon in bold, the rest small below it, wrapped to its width."""
    head, _, detail = text.partition(": ")
    columns = axis.get_subplotspec().get_gridspec().ncols
    lines = textwrap.wrap(detail, _DETAIL_WIDTH.get(columns, 34)) or [" "]
    axis.set_title("\n".join(lines), size=7.8, color=MUTED, weight="normal", pad=6, linespacing=1.25)
    place = {"xytext": (0, 17.5 + 10.5 * (len(lines) - 1)), "textcoords": "offset points", "xycoords": "axes fraction"}
    axis.annotate(head, (0, 1), **place, size=9.5, weight="bold", va="bottom", ha="left")


_DETAIL_WIDTH = {1: 100, 2: 74, 3: 52}
"""Characters of a panel's small title line, by the number of columns of the grid."""


def _row_lengths(lines: Sequence[int], columns: int) -> list[int]:
    """Axes of each row, from the cells of each line.

    >>> _row_lengths([1, 1, 1, 1, 3, 2], 3)
    [3, 1, 3, 2]
    """
    lengths: list[int] = []
    for single, run in itertools.groupby(lines, lambda cells: cells == 1):
        cells = list(run)
        lengths += [len(cells[start : start + columns]) for start in range(0, len(cells), columns)] if single else cells
    return lengths
