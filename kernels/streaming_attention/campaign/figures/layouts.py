"""Layouts in figures: their names, and an axis of thread counts grouped by how many ranks there are and where."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import LAYOUT
from streaming_attention.campaign.figures import style
from streaming_attention.campaign.figures.axes import axis_of_values, plot
from streaming_attention.campaign.figures.data import SHAPE, Drawn, Panel, stack
from streaming_attention.campaign.figures.page import WIDTH, Page, legend_of, notes_of, panel_title
from streaming_attention.campaign.words import say_field, say_layout

PLACE = ["ranks", "nodes", "sockets", "ranks_per_socket", "binding"]
_KEY = [*PLACE, "threads"]
_GAP = 0.7
_SHAPE = SHAPE[1:]


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


class ShapeAxis:
    """Positions along x for the shapes of one workload; the same interface as :class:`LayoutAxis`."""

    def __init__(self, rows: pd.DataFrame):
        shapes = rows[_SHAPE].drop_duplicates().sort_values(_SHAPE)
        self._varied = [name for name in _SHAPE if shapes[name].nunique() > 1]
        self._shapes = shapes.to_dict("records")
        self._at = {tuple(shape.values()): float(index) for index, shape in enumerate(self._shapes)}

    def __len__(self) -> int:
        return len(self._at)

    def positions(self, rows: pd.DataFrame) -> list[float]:
        return [self._at[tuple(row)] for row in rows[_SHAPE].itertuples(index=False)]

    def place_of(self, rows: pd.DataFrame) -> pd.Series:
        """Every shape is a group of its own: there is no line between shapes."""
        return pd.Series(self.positions(rows), index=rows.index)

    def decorate(self, axis: Axes) -> None:
        """Name the shapes by what differs between them."""
        labels = ["\n".join(say_field(name, shape[name]) for name in self._varied) for shape in self._shapes]
        axis.set_xticks(range(len(self)), labels, fontsize=8 if len(self) < 8 else 7)
        axis.tick_params(axis="x", length=0)
        axis.set_xlim(-0.6, len(self) - 0.4)
        axis.set_xlabel("shape of the workload")


def place_of_mixed(panel: Panel, rows: pd.DataFrame) -> list[str]:
    """The layout of a panel of several shapes, for its title; of others nothing."""
    return [say_layout(rows.iloc[0].to_dict())] if panel.mixed else []


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
    longest = max(len(_axis_for(some)) for some in shown)
    page = Page(title, explanation, len(shown), 1 if longest > 9 else None, None if longest <= 9 else WIDTH)
    for axis, some in zip(page.axes, shown, strict=True):
        draw_panel(axis, some, marks, label)
    return Drawn(page.finish(legend_of(rows, marks), notes_of(rows)), rows)


def _axis_for(rows: pd.DataFrame) -> LayoutAxis | ShapeAxis:
    """Layouts along x, unless the rows are of one layout and several shapes."""
    ours = rows[rows["source"] == "measured"]
    mixed = len(ours[_SHAPE].drop_duplicates()) > 1
    return ShapeAxis(ours) if mixed else LayoutAxis(ours)


def draw_panel(
    axis: Axes,
    rows: pd.DataFrame,
    marks: dict[str, style.Mark],
    label: str,
    *,
    layouts: LayoutAxis | ShapeAxis | None = None,
    key: str = "method",
    log: bool = True,
) -> None:
    """Values over layouts, a series for each name in the column ``key``.

    Parameters
    ----------
    layouts : LayoutAxis or ShapeAxis, optional
        By default what was measured; published rows on other layouts must have been left out.
    """
    layouts = layouts or _axis_for(rows)
    series = [name for name in marks if name in set(rows[key])]
    for (source, name, _), some in rows.dropna(subset="value").groupby(["source", key, "label"], sort=False):
        for _, group in some.groupby(layouts.place_of(some)):
            x = [position + _shift(series, name) for position in layouts.positions(group)]
            plot(axis, x, group, marks[name], open_=source == "published")
    panel_title(axis, rows["panel"].iloc[0])
    layouts.decorate(axis)
    axis_of_values(axis, label, log)
    _mark_missing(axis, rows[rows["value"].isna()], layouts, marks, series)


def _mark_missing(axis: Axes, rows: pd.DataFrame, layouts: LayoutAxis, marks: dict, series: list[str]) -> None:
    for position, method in zip(layouts.positions(rows), rows["method"], strict=True):
        x = position + _shift(series, method)
        axis.plot([x], [0.02], "x", color=marks[method].color, transform=axis.get_xaxis_transform(), markersize=5)


def _shift(series: list[str], name: str) -> float:
    """Place of a series within a layout, so that markers and bars don't cover each other."""
    middle = (len(series) - 1) / 2
    return (series.index(name) - middle) * min(0.16, 0.6 / len(series))
