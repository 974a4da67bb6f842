"""Timeline: what every rank did in one call, computing or communicating, and how much of the call was neither."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.data import Drawn, Options, Panel, panels, passed, sidecar, stack, titled
from streaming_attention.campaign.figures.page import Page, empty, panel_title
from streaming_attention.campaign.figures.quantities import QUANTITIES, evaluate, state
from streaming_attention.campaign.words import say_layout, say_length
from streaming_attention.prepared import COMMUNICATION, COMPUTE

TITLE = FIGURES["timeline"]
EXPLANATION = """One call after the timing, from the barrier before it to the end of the slowest rank. Messages that
travel while a rank computes are hidden; what is bright is not. The numbers are shares of the call: computing, exposed
communication, idle."""
COLORS = {COMPUTE: "#0072B2", COMMUNICATION: "#E69F00"}
SPENT = ("compute", "communication", "idle")
MOST = 12
"""Panels of the figure."""
ROOM = 1.4
"""Length of the axis over that of the call; the numbers stand in what is left."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """A panel per workload and way of computing over ranks, a bar of stages per rank."""
    found = [cell for panel in panels(_with_timeline(tables)) for cell in _cells(tables, panel)][:MOST]
    if not found:
        return empty(TITLE, "no timeline of several ranks in this campaign")
    most = max(rows["rank"].max() + 1 for rows, _ in found)
    page = Page(TITLE, EXPLANATION, len(found), columns=2, height=max(2.2, 1 + 0.15 * most))
    for axis, (rows, kinds) in zip(page.axes, found, strict=True):
        _draw_panel(axis, rows, kinds)
    handles = [Patch(color=color, label=kind) for kind, color in COLORS.items()]
    return Drawn(page.finish(handles), stack(rows for rows, _ in found))


def _with_timeline(tables: Tables) -> pd.DataFrame:
    frame = passed(tables)
    return frame[frame["timeline"] != ""]


def _cells(tables: Tables, panel: Panel) -> Iterator[tuple[pd.DataFrame, list[str]]]:
    """Rows and kinds of stages of every method with its options, at the longest T and there on the most ranks."""
    frame = panel.frame[panel.frame["keys"] == panel.frame["keys"].max()]
    frame = frame[frame["ranks"] == frame["ranks"].max()]
    for label, rows in frame.groupby("label", sort=False):
        first = rows.iloc[0].to_dict()
        where = titled(panel.title, f"T = {say_length(first['keys'])}", say_layout(first))
        yield _rows(tables, first | {"panel": f"{label}: {where.replace(':', ',')}"})


def _rows(tables: Tables, row: dict) -> tuple[pd.DataFrame, list[str]]:
    """A row for every stage of every rank, and for what each rank spent."""
    timeline = tables.timeline(row["record"], row["label"])
    wanted = [("stage", rank, stage) for rank, entry in enumerate(timeline) for stage in range(len(entry["stages"]))]
    wanted += [(f"rank_{name}", rank, None) for rank in range(len(timeline)) for name in SPENT]
    kinds = [stage["kind"] for entry in timeline for stage in entry["stages"]]
    return sidecar(_evaluated(tables, row, *one) for one in wanted), kinds


def _evaluated(tables: Tables, row: dict, quantity: str, rank: int, stage: int | None) -> dict:
    row = row | {"quantity": quantity, "unit": QUANTITIES[quantity].unit, "rank": rank, "stage": stage}
    return row | state(row, evaluate(tables, row))


def _draw_panel(axis: Axes, rows: pd.DataFrame, kinds: list[str]) -> None:
    stages = rows[rows["quantity"] == "stage"]
    colors = [COLORS[kind] for kind in kinds]
    width, left = stages["high"] - stages["low"], stages["low"]
    axis.barh(stages["rank"].astype(int), width, left=left, color=colors, height=0.6, linewidth=0)
    spent = rows[rows["quantity"] != "stage"].pivot(index="rank", columns="quantity", values="value")
    whole = spent.sum(axis=1).max()
    for rank, times in spent.iterrows():
        shares = " · ".join(f"{100 * times[f'rank_{name}'] / whole:.0f} %" for name in SPENT)
        axis.annotate(shares, (whole, rank), (4, 0), textcoords="offset points", va="center", size=7.5)
    panel_title(axis, rows["panel"].iloc[0])
    axis.set_yticks(list(spent.index))
    axis.set_ylabel("rank")
    axis.invert_yaxis()
    axis.set_xlim(0, ROOM * whole)
    axis.set_xlabel("time since the call began (ms)")
