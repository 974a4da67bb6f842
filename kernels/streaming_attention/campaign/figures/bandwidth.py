"""Memory bandwidth: STREAM on every layout, and the share of it that each method reaches on one query."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import LAYOUT, Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.data import (
    Drawn,
    Options,
    Panel,
    compare_with_ceiling,
    estimate,
    estimate_ceilings,
    panels,
    passed,
    pick_keys,
    published_bandwidth,
    representatives,
    stack,
    titled,
)
from streaming_attention.campaign.figures.layouts import LayoutAxis, draw_panel
from streaming_attention.campaign.figures.page import WIDTH, Page, empty, handle, legend_of, notes_of
from streaming_attention.campaign.words import say_length

TITLE = FIGURES["bandwidth"]
EXPLANATION = """STREAM rates of all ranks together, on arrays several times the caches; and the bytes that a method
has to move in one call over its time, as a share of a ceiling measured on the same layout (published: of its triad,
since it has no read kernel). Above 100 % keys and values came from a cache. Bars are bootstrap intervals of the
median."""
STREAM = ("copy", "scale", "add", "triad", "read")
CEILINGS = ("read", "triad")
"""What a method's bandwidth is a share of: the first of these that the campaign has."""
WIDE = 8.0
"""Rates that differ by more than this factor are drawn on a logarithmic axis."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """STREAM over layouts on top; below, a panel per workload of one query with every method's share of the ceiling."""
    stream = _stream(tables, options)
    if stream.empty:
        return empty(TITLE, "no passed measurement of memory bandwidth in this campaign")
    ceiling = next((name for name in CEILINGS if name in set(stream["label"])), None)
    frame = representatives(passed(tables))
    shares = [_shares(tables, panel, ceiling, options) for panel in panels(frame[frame["queries"] == 1])]
    shares = [rows for rows in shares if (rows["source"] == "measured").any()]
    rows = stack([stream, *shares])
    page = Page(TITLE, EXPLANATION, 1 + len(shares), 1, WIDTH, 3.0)
    kernels, methods = style.marks_of(stream["label"]), style.marks_of(stack(shares)["method"])
    _draw_stream(page.axes[0], stream, kernels)
    for axis, some in zip(page.axes[1:], shares, strict=True):
        _draw_shares(axis, some, methods)
    _name_beside(page.axes[0], [handle(name, mark) for name, mark in kernels.items()])
    for axis, some in zip(page.axes[1:], shares, strict=True):
        _name_beside(axis, legend_of(some, methods))
    return Drawn(page.finish(notes=notes_of(rows)), rows)


def _stream(tables: Tables, options: Options) -> pd.DataFrame:
    title = "STREAM: all ranks at once"
    ours = estimate_ceilings(tables, STREAM, "bandwidth", title)
    if ours.empty or not options.published:
        return ours
    return stack([ours, estimate(tables, published_bandwidth(), "bandwidth", title)])


def _shares(tables: Tables, panel: Panel, ceiling: str, options: Options) -> pd.DataFrame:
    keys = pick_keys(panel.frame, options)
    frame = panel.frame[panel.frame["keys"] == keys]
    title = titled(panel.title, f"T = {say_length(keys)}", f"share of {ceiling}")
    ours = estimate(tables, compare_with_ceiling(frame, tables, ceiling), "share", title)
    theirs = _published_shares(panel, keys, options)
    return stack([ours, estimate(tables, theirs[LayoutAxis(frame).has(theirs)], "share", title)])


def _published_shares(panel: Panel, keys: int, options: Options) -> pd.DataFrame:
    """Published times over the published triad of one rank with as many threads; it has no read kernel."""
    times = panel.published(options)
    triad = published_bandwidth().query("label == 'triad'")
    names = {"label": "reference", "record": "reference_record", "record_digest": "reference_digest"}
    triad = triad[["ranks", "threads", *names]].rename(columns=names)
    times = times[times["keys"] == keys].drop(columns=list(names.values()))
    return times.merge(triad, on=["ranks", "threads"])


def _draw_stream(axis: Axes, rows: pd.DataFrame, marks: dict[str, style.Mark]) -> None:
    layouts = LayoutAxis(pd.concat([rows[rows["source"] == "measured"], _as_one_rank(rows)])[list(LAYOUT)])
    wide = rows["value"].max() > WIDE * rows["value"].min()
    draw_panel(axis, rows, marks, "bandwidth (GB/s)", layouts=layouts, key="label", log=wide)
    if not wide:
        axis.set_ylim(bottom=0)


def _name_beside(axis: Axes, handles: list) -> None:
    axis.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5, handlelength=2.8)


def _as_one_rank(rows: pd.DataFrame) -> pd.DataFrame:
    """Published rows placed beside ours: one rank on one socket."""
    place = {"nodes": 1, "sockets": 1, "ranks_per_socket": 1, "binding": "cores"}
    return rows[rows["source"] == "published"].assign(**place)


def _draw_shares(axis: Axes, rows: pd.DataFrame, marks: dict[str, style.Mark]) -> None:
    axis.axhline(100.0, color="#999999", linewidth=0.9, linestyle=(0, (6, 3)), zorder=1.5)
    draw_panel(axis, rows, marks, "share of the ceiling (%)", log=False)
    axis.set_ylim(bottom=0)
