"""How figures look: one palette, one marker and one line per method, the same header and axes everywhere.

Colours are Okabe and Ito's ("Color universal design", 2008), which colour-blind readers can tell apart; marker and line
differ as well, so that a greyscale print reads the same. Published numbers are open markers on dotted lines.
"""

from __future__ import annotations

import functools
import io
import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from streaming_attention.campaign import published
from streaming_attention.campaign.aggregate import write_csv
from streaming_attention.campaign.figures.data import Drawn, sidecar
from streaming_attention.campaign.files import sha256_of, write_atomically
from streaming_attention.campaign.words import say_length, say_number

INK, MUTED, FAINT = "#222222", "#666666", "#d9d9d9"
RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.axisbelow": True,
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "streaming-attention",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}
"""``svg.fonttype: path`` draws the same letters in every browser; a fixed salt gives equal bytes for equal rows."""

WIDTH = 10.0
"""Inches of a figure with several columns."""
NARROW = 6.5
"""Inches of a figure with a single column, unless its axis is long."""


class Mark(NamedTuple):
    """Colour, marker and line of one series."""

    color: str
    marker: str
    line: str | tuple


_SPARE = (
    Mark("#CC79A7", "v", (0, (1, 1))),
    Mark("#56B4E9", "P", (0, (5, 1, 1, 1, 1, 1))),
    Mark("#8a6d00", "X", (0, (7, 2))),
    Mark("#7a3e9d", "<", (0, (3, 1))),
)
MARKS = {
    "naive": Mark("#555555", "s", (0, (4, 2))),
    "gemm": Mark("#D55E00", "^", "-."),
    "streaming": Mark("#0072B2", "o", "-"),
    "torch_sdpa": Mark("#009E73", "D", (0, (2, 1.2))),
    "threads": Mark("#0072B2", "o", "-"),
    "ranks": Mark("#D55E00", "s", (0, (4, 2))),
    "hybrid": Mark("#009E73", "D", "-."),
    "copy": Mark("#555555", "s", (0, (4, 2))),
    "scale": Mark("#CC79A7", "v", (0, (1, 1))),
    "add": Mark("#D55E00", "^", "-."),
    "triad": Mark("#0072B2", "o", "-"),
    "read": Mark("#009E73", "D", (0, (2, 1.2))),
}
"""Marks of the known series; others get a spare one by their order."""


def marks_of(names: Iterable[str]) -> dict[str, Mark]:
    """A mark for every name, known names first in the order of :data:`MARKS`."""
    names = set(names)
    ordered = [name for name in MARKS if name in names]
    strangers = sorted(names - set(MARKS))
    spare = {name: _SPARE[index % len(_SPARE)] for index, name in enumerate(strangers)}
    return {name: MARKS[name] for name in ordered} | spare


def styled(draw):
    """Give a drawing function the house's settings, whatever the caller's are."""

    @functools.wraps(draw)
    def inside(*arguments, **named):
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(RC)
            return draw(*arguments, **named)

    return inside


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
        """A page with a row of axes for each line, some of them shorter; there is one of ``axes`` for every cell."""
        columns = max(len(line) for line in lines)
        page = cls(title, explanation, len(lines) * columns, columns)
        filled = [column < len(line) for line in lines for column in range(columns)]
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


@styled
def render(figure: Figure, **metadata) -> bytes:
    """The figure as SVG; the same figure gives the same bytes, since neither date nor version is in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, **metadata})
    figure.set_layout_engine("none")  # laid out once: a second pass would move things by a hair
    return buffer.getvalue()


def save(drawn: Drawn, svg: str | os.PathLike, csv: str | os.PathLike) -> None:
    """Write the figure and its sidecar, each whole or not at all; the figure carries the sidecar's digest."""
    write_csv(drawn.rows, csv)
    write_atomically(svg, render(drawn.figure, Identifier=sha256_of(csv)))


def plot(
    axis: Axes, x: Sequence[float], rows: pd.DataFrame, mark: Mark, *, line: bool = True, open_: bool = False
) -> None:
    """Points with error bars, joined by a line where asked; open markers are published numbers.

    Parameters
    ----------
    x : sequence of float
        Positions of the rows.
    rows : DataFrame
        With ``value``, ``low``, ``high``; missing bounds draw no bar.
    """
    below, above = (rows["value"] - rows["low"]).fillna(0.0), (rows["high"] - rows["value"]).fillna(0.0)
    axis.errorbar(
        x,
        rows["value"],
        yerr=[below.clip(lower=0.0), above.clip(lower=0.0)],
        color=mark.color,
        marker=mark.marker,
        markerfacecolor="white" if open_ else mark.color,
        markeredgecolor=mark.color if open_ else "white",
        markeredgewidth=1.1 if open_ else 0.6,
        linestyle=((0, (1, 2)) if open_ else mark.line) if line else "none",
        linewidth=1.0 if open_ else 1.5,
        elinewidth=1.1,
        capsize=2.2,
        capthick=1.1,
        zorder=2.5 if open_ else 3,
    )


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


def guide(axis: Axes, x: Sequence[float], y: Sequence[float], label: str, **place) -> None:
    """A thin grey line that no measurement stands behind, named at its end; it never stretches the finished axes."""
    low, high = axis.get_ylim()
    axis.plot(x, y, color="#999999", linewidth=0.9, linestyle=(0, (6, 3)), zorder=1.5)
    axis.set_ylim(low, high)
    along = np.geomspace(x[0], x[-1], 200)
    height = np.exp(np.interp(np.log(along), np.log(x), np.log(y)))
    seen = np.flatnonzero((height >= low) & (height <= high))
    if seen.size:
        end = along[seen[-1]], height[seen[-1]]
        axis.annotate(label, end, **{**_GUIDE_LABEL, **place})


_GUIDE_LABEL = {
    "xytext": (4, 0),
    "textcoords": "offset points",
    "ha": "left",
    "va": "center",
    "color": MUTED,
    "size": 7.5,
}


def axis_of_keys(axis: Axes, keys: Iterable[int]) -> None:
    """A logarithmic T axis with a tick at every T that was measured."""
    keys = sorted(set(keys))
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(keys))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: say_length(value)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(keys[0] / 1.35, keys[-1] * 1.35)
    axis.set_xlabel("sequence length T (keys)")


def axis_of_counts(axis: Axes, counts: Iterable[int], label: str) -> None:
    """A logarithmic axis of small whole numbers: a tick at each, or at the powers of two if they are many."""
    counts = sorted(set(counts))
    ticks = counts if len(counts) <= 8 else [1 << step for step in range(counts[-1].bit_length())]
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(counts[0] / 1.3, counts[-1] * 1.3)
    axis.tick_params(axis="x", labelsize=9 if len(ticks) <= 8 else 7.5)
    axis.set_xlabel(label)


def axis_of_values(axis: Axes, label: str, log: bool = True) -> None:
    """The y axis: a label with its unit, a faint grid, plain numbers on a logarithmic scale."""
    axis.set_ylabel(label)
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.margins(y=0.12)
    if log:
        axis.set_yscale("log")
        plain_log(axis.yaxis)


def plain_log(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers, as many as its range asks for."""
    axis.set_major_locator(_PlainLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: say_number(value)))
    axis.set_minor_locator(NullLocator())


class _PlainLocator(Locator):
    """Decades, with 2 and 5 between them on a short axis, and even steps on a very short one."""

    def __call__(self):
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float):
        if not 0 < vmin < vmax:
            return []
        decades = math.log10(vmax / vmin)
        if decades < 0.5:
            return MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(vmin, vmax)
        subs = (1, 1.5, 2, 3, 5, 7) if decades < 1.1 else (1, 2, 5) if decades < 3.4 else (1,)
        return LogLocator(base=10, subs=subs, numticks=20).tick_values(vmin, vmax)
