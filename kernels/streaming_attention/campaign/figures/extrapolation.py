"""The scaling model beyond this campaign: the published cluster and a thousand sockets, at lengths of millions."""

from __future__ import annotations

import json

import pandas as pd
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.axes import axis_of_counts, axis_of_values, plot
from streaming_attention.campaign.figures.data import Drawn, Options, passed, sidecar
from streaming_attention.campaign.figures.page import Page, empty, handle, panel_title
from streaming_attention.campaign.figures.quantities import QUANTITIES, evaluate, state
from streaming_attention.campaign.scaling.extrapolation import METHOD, answer, questions
from streaming_attention.campaign.words import say_length, say_shape

TITLE = FIGURES["extrapolation"]
EXPLANATION = """Seconds of one call over sockets, one rank each, as the scaling model has them: nothing here is
measured. The table extrapolated has the assumptions behind every line, and the strategy that the model takes at
every point. A line begins where Q, K, V and O fit the memory."""
_DASHES = ("-", (0, (4, 2)), "-.", (0, (1, 1)), (0, (5, 1, 1, 1)))
_COLORS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00")
_MARKERS = ("o", "s", "D", "^", "v")


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Predicted time over sockets: a panel per cluster and workload, a line per T."""
    if passed(tables).empty:
        return empty(TITLE, "no passed measurement in this campaign that the model could start from")
    rows = sidecar(_rows(tables))
    every = zip(sorted(rows["keys"].unique()), _COLORS, _MARKERS, _DASHES, strict=True)
    marks = {int(keys): style.Mark(*look) for keys, *look in every}
    groups = [some for _, some in rows.groupby("panel", sort=False)]
    page = Page(TITLE, EXPLANATION, len(groups))
    for axis, some in zip(page.axes, groups, strict=True):
        _draw_panel(axis, some, marks)
    return Drawn(page.finish([handle(f"T = {say_length(keys)}", mark) for keys, mark in marks.items()]), rows)


def _rows(tables: Tables):
    for cluster, workload, layout in questions():
        found = answer(tables, cluster, workload, layout)
        if found is None:
            continue
        fields = workload.as_dict()
        shape = say_shape(fields, workload.queries > 1)
        row = {
            "panel": f"{cluster.name}, {fields.pop('name')}: {shape}",
            "source": "model",
            "quantity": "extrapolated_time",
            "unit": QUANTITIES["extrapolated_time"].unit,
            "method": METHOD,
            "options": json.dumps({"strategy": found[0]}),
            "label": f"{METHOD} strategy={found[0]}",
            "status": "model",
            "workload": workload.name,
            "reference": cluster.name,
            **fields,
            **layout.as_dict(),
            "ranks": layout.ranks,
        }
        yield row | state(row, evaluate(tables, row))


def _draw_panel(axis: Axes, rows: pd.DataFrame, marks: dict[int, style.Mark]) -> None:
    for keys, some in rows.groupby("keys"):
        plot(axis, some["ranks"], some.assign(low=None, high=None), marks[int(keys)])
    panel_title(axis, rows["panel"].iloc[0])
    axis_of_counts(axis, rows["ranks"], "sockets")
    axis_of_values(axis, "time of a call (s)")
