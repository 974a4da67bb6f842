"""Points, guides and scales: how numbers are put on the axes of a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from streaming_attention.campaign.figures.style import FAINT, MUTED, Mark
from streaming_attention.campaign.words import say_length, say_number


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
