"""Layouts in figures: their names, and an axis of thread counts grouped by how many ranks there are and where."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import LAYOUT
from streaming_attention.campaign.figures import style
from streaming_attention.campaign.figures.data import Drawn, stack

PLACE = ["ranks", "nodes", "sockets", "ranks_per_socket", "binding"]
_KEY = [*PLACE, "threads"]
_GAP = 0.7


class LayoutAxis:
    """Positions for layouts along x.

    Parameters
    ----------
    rows : DataFrame
        With the layout's columns; every distinct layout gets a position.
    """

    def __init__(self, rows: pd.DataFrame):
        layouts = rows[_KEY].drop_duplicates().sort_values(_KEY)
        self._at: dict[tuple, float] = {}
        self.groups: dict[tuple, list[float]] = {}
        position = -1.0 - _GAP
        for layout in layouts.itertuples(index=False):
            place = tuple(layout)[: len(PLACE)]
            position += 1.0 + (0.0 if place in self.groups else _GAP)
            self.groups.setdefault(place, []).append(position)
            self._at[tuple(layout)] = position

    def __len__(self) -> int:
        return len(self._at)

    def positions(self, rows: pd.DataFrame) -> list[float]:
        """Where the rows belong; a published row, known by ranks and threads alone, goes to the first such layout."""
        return [self._find(tuple(row)) for row in rows[_KEY].itertuples(index=False)]

    def has(self, rows: pd.DataFrame) -> np.ndarray:
        """Whether a layout with the rows' ranks and threads is on the axis."""
        there = {(key[0], key[-1]) for key in self._at}
        pairs = rows[["ranks", "threads"]].itertuples(index=False, name=None)
        return np.array([pair in there for pair in pairs], dtype=bool)

    def place_of(self, rows: pd.DataFrame) -> pd.Series:
        """The group of every row: rows of one group may be joined by a line."""
        owner = {at: number for number, positions in enumerate(self.groups.values()) for at in positions}
        return pd.Series([owner[at] for at in self.positions(rows)], index=rows.index)

    def decorate(self, axis: Axes) -> None:
        """Ticks, group names below them, and faint lines between the groups."""
        labels = [f"{key[-1]}" for key in self._at]
        axis.xaxis.remove_overlapping_locs = False
        dense = len(self) > 24
        axis.set_xticks(list(self._at.values()), labels, fontsize=7 if dense else 9)
        centres = [sum(positions) / len(positions) for positions in self.groups.values()]
        axis.set_xticks(centres, [f"\n{self._name(place)}" for place in self.groups], minor=True, fontsize=8)
        axis.tick_params(axis="x", which="minor", length=0)
        axis.tick_params(axis="x", which="major", length=0)
        for positions in list(self.groups.values())[1:]:
            axis.axvline(positions[0] - (1.0 + _GAP) / 2, color=style.FAINT, linewidth=0.8, zorder=0)
        axis.set_xlim(-0.7, max(self._at.values()) + 0.7)
        axis.set_xlabel("threads of each rank")

    def _find(self, key: tuple) -> float:
        if key in self._at:
            return self._at[key]
        return next(position for known, position in self._at.items() if (known[0], known[-1]) == (key[0], key[-1]))

    def _name(self, place: tuple) -> str:
        ranks, nodes, sockets, each, binding = place
        alike = [other for other in self.groups if other[0] == ranks]
        where = f"\n{nodes} × {sockets} × {each}" if len(alike) > 1 else ""
        loose = "\nunbound" if binding == "none" else ""
        return f"{ranks} rank{'s' if ranks > 1 else ''}{where}{loose}"


def name_layout(layout: dict) -> str:
    """A layout in a few words: ``2 threads``, ``16 ranks × 4 threads``."""
    threads = f"{layout['threads']} thread{'s' if layout['threads'] > 1 else ''}"
    ranks = f"{layout['ranks']} ranks × " if layout["ranks"] > 1 else ""
    return ranks + threads + (", unbound" if layout["binding"] == "none" else "")


def narrowest_and_widest(frame: pd.DataFrame) -> list[dict]:
    """The layouts with the fewest and the most workers; one if they are the same, none of no rows."""
    layouts = frame[list(LAYOUT)].drop_duplicates()
    ordered = layouts.assign(workers=layouts["ranks"] * layouts["threads"]).sort_values(["workers", *LAYOUT])
    ends = ordered.iloc[sorted({0, len(ordered) - 1})] if len(ordered) else ordered
    return ends[list(LAYOUT)].to_dict("records")


def on_layout(frame: pd.DataFrame, layout: dict) -> pd.DataFrame:
    """Rows of one layout."""
    return frame[(frame[list(layout)] == pd.Series(layout)).all(axis=1)]


def draw_over_layouts(title: str, explanation: str, shown: list[pd.DataFrame], label: str) -> Drawn:
    """Panels of values over layouts, methods side by side."""
    rows = stack(shown)
    marks = style.marks_of(rows["method"])
    longest = max(len(LayoutAxis(some)) for some in shown)
    narrow = len(shown) == 1 and longest <= 9
    page = style.Page(title, explanation, len(shown), 1 if longest > 9 else 2, width=6.5 if narrow else style.WIDTH)
    for axis, some in zip(page.axes, shown, strict=True):
        draw_panel(axis, some, marks, label)
    return Drawn(page.finish(style.legend_of(rows, marks), style.notes_of(rows)), rows)


def draw_panel(
    axis: Axes,
    rows: pd.DataFrame,
    marks: dict[str, style.Mark],
    label: str,
    *,
    layouts: LayoutAxis | None = None,
    key: str = "method",
    log: bool = True,
) -> None:
    """Values over layouts, a series for each name in the column ``key``.

    Parameters
    ----------
    layouts : LayoutAxis, optional
        By default the layouts that were measured; published rows on others must have been left out.
    """
    layouts = layouts or LayoutAxis(rows[rows["source"] == "measured"])
    series = [name for name in marks if name in set(rows[key])]
    for (source, name, _), some in rows.dropna(subset="value").groupby(["source", key, "label"], sort=False):
        for _, group in some.groupby(layouts.place_of(some)):
            x = [position + _shift(series, name) for position in layouts.positions(group)]
            style.plot(axis, x, group, marks[name], open_=source == "published")
    style.panel_title(axis, rows["panel"].iloc[0])
    layouts.decorate(axis)
    style.axis_of_values(axis, label, log)
    _mark_missing(axis, rows[rows["value"].isna()], layouts, marks, series)


def _mark_missing(axis: Axes, rows: pd.DataFrame, layouts: LayoutAxis, marks: dict, series: list[str]) -> None:
    for position, method in zip(layouts.positions(rows), rows["method"], strict=True):
        x = position + _shift(series, method)
        axis.plot([x], [0.02], "x", color=marks[method].color, transform=axis.get_xaxis_transform(), markersize=5)


def _shift(series: list[str], name: str) -> float:
    """Place of a series within a layout, so that markers and bars don't cover each other."""
    middle = (len(series) - 1) / 2
    return (series.index(name) - middle) * min(0.16, 0.6 / len(series))
