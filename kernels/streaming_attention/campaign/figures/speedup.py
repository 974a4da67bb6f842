"""Speedup by method over a reference method of the same record, on every layout, at one T per workload."""

from __future__ import annotations

import pandas as pd

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.data import (
    Drawn,
    Options,
    Panel,
    compare_within,
    estimate,
    join_shapes,
    panels,
    passed,
    pick_keys,
    representatives,
    stack,
    titled,
)
from streaming_attention.campaign.figures.layouts import LayoutAxis, draw_over_layouts, place_of_mixed
from streaming_attention.campaign.figures.page import empty
from streaming_attention.campaign.words import say_length

TITLE = FIGURES["speedup"]
EXPLANATION = """Median time of the reference method over that of the method, inside the same record; above 1 is
faster than the reference. Bars are bootstrap intervals of the ratio over samples and repeats."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Speedup over layouts, a panel per workload; the reference is ``options.reference`` wherever it was measured.

    A ratio is only ever taken inside a record, then pooled over repeats. A workload whose records never hold the
    reference is shown over the method that most of its records hold, and its panel says which.
    """
    every = join_shapes(panels(representatives(passed(tables))))
    shown = [_rows(tables, panel, options) for panel in every]
    shown = [rows for rows in shown if len(rows)]
    if not shown:
        return empty(TITLE, "no passed measurement of two methods in one record in this campaign")
    drawn = draw_over_layouts(TITLE, EXPLANATION, shown, "speedup over the reference")
    for axis, rows in zip(drawn.figure.axes, shown, strict=True):
        _mark_reference(axis, rows["reference"].iloc[0])
    return drawn


def _rows(tables: Tables, panel: Panel, options: Options) -> pd.DataFrame:
    reference = _reference(panel, options)
    if reference is None:
        return stack([])
    some = compare_within(panel.frame, reference)
    some = some[some["label"] != reference]
    keys = pick_keys(some, options)
    some = some[some["keys"] == keys]
    place = place_of_mixed(panel, some)
    title = titled(panel.title, f"T = {say_length(keys)}", *place, f"over {reference}")
    theirs = _published(panel, reference, keys, options)
    theirs = theirs[LayoutAxis(some).has(theirs)]
    return stack([estimate(tables, some, "speedup", title), estimate(tables, theirs, "speedup", title)])


def _reference(panel: Panel, options: Options) -> str | None:
    """Label to compare with: the wished one if any record holds it and another, else the one most records hold.

    Shapes that stand together need one that most of them have.
    """
    frame = panel.frame
    companions = frame.groupby("record")["label"].transform("nunique") > 1
    counts = frame[companions].groupby(["label", "method"])["record"].nunique()
    if counts.empty:
        return None
    wished = [key for key in counts.index if key[1] == options.reference and not panel.mixed]
    return (wished or sorted(counts.index, key=lambda key: (-counts[key], key)))[0][0]


def _published(panel: Panel, reference: str, keys: int, options: Options) -> pd.DataFrame:
    """Published times whose layout has a published time of the reference's method as well."""
    times = panel.published(options)
    times = times[times["keys"] == keys]
    method = panel.frame.loc[panel.frame["label"] == reference, "method"].iloc[0]
    base = times[times["method"] == method].drop_duplicates(["ranks", "threads"])
    names = {"label": "reference", "record": "reference_record", "record_digest": "reference_digest"}
    base = base[["ranks", "threads", *names]].rename(columns=names)
    return times[times["method"] != method].drop(columns=list(names.values())).merge(base, on=["ranks", "threads"])


def _mark_reference(axis, reference: str) -> None:
    axis.axhline(1.0, color="#999999", linewidth=0.9, linestyle=(0, (6, 3)), zorder=1.5)
    place = {"xycoords": ("axes fraction", "data"), "xytext": (-2, 3), "textcoords": "offset points"}
    axis.annotate(f"{reference} = 1", (1.0, 1.0), **place, ha="right", color=style.MUTED, size=7.5)
