"""Run time by method on every layout, at one T per workload."""

from __future__ import annotations

import pandas as pd

from streaming_attention.campaign.aggregate import WORKLOAD, Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.data import (
    Drawn,
    Options,
    Panel,
    estimate,
    join_shapes,
    panels,
    passed,
    pick_keys,
    representatives,
    sidecar,
    stack,
    summary_rows,
    titled,
)
from streaming_attention.campaign.figures.layouts import LayoutAxis, draw_over_layouts, place_of_mixed
from streaming_attention.campaign.figures.page import empty
from streaming_attention.campaign.words import say_length

TITLE = FIGURES["runtime"]
EXPLANATION = """Time of one call, the slowest rank's; lower is better. Bars are bootstrap intervals of the median
over samples and repeats. Methods of one layout were measured in turn, in the same job."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Run time over layouts, a panel per workload, at the T where most methods passed."""
    every = join_shapes(panels(representatives(passed(tables))))
    shown = [_rows(tables, panel, options) for panel in every]
    if not shown:
        return empty(TITLE, "no passed measurement of run time in this campaign")
    return draw_over_layouts(TITLE, EXPLANATION, shown, "run time (ms)")


def _rows(tables: Tables, panel: Panel, options: Options) -> pd.DataFrame:
    keys = pick_keys(panel.frame, options)
    some = panel.frame[panel.frame["keys"] == keys]
    title = titled(panel.title, f"T = {say_length(keys)}", *place_of_mixed(panel, some))
    ours = estimate(tables, some, "time", title)
    times = panel.published(options)
    theirs = estimate(tables, times[(times["keys"] == keys) & LayoutAxis(some).has(times)], "time", title)
    return stack([ours, theirs, _not_passed(tables, some, title)])


def _not_passed(tables: Tables, some: pd.DataFrame, title: str) -> pd.DataFrame:
    """Methods that have a time on some layout of the panel but none on another: shown as such, not left out."""
    rows = summary_rows(tables).merge(some[list(WORKLOAD)].drop_duplicates())
    refused = rows[(rows["status"] != "passed") & rows["label"].isin(some["label"])]
    refused = refused.drop_duplicates(["point", "label"])
    timed = set(zip(some["point"], some["label"], strict=True))
    return sidecar(
        {**row, "panel": title, "quantity": "time", "unit": "ms"}
        for row in refused.to_dict("records")
        if (row["point"], row["label"]) not in timed
    )
