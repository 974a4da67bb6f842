"""Time of a call over the number of ranks: what strong and weak scaling share, and the model's prediction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd
from matplotlib.axes import Axes

from streaming_attention import models
from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import style
from streaming_attention.campaign.figures.axes import axis_of_counts, axis_of_values, guide, plot
from streaming_attention.campaign.figures.data import Drawn, Panel, estimate, panels, passed, sidecar, stack, titled
from streaming_attention.campaign.figures.page import Page, empty, handle, legend_of, panel_title
from streaming_attention.campaign.figures.quantities import QUANTITIES, evaluate, state, workload_of
from streaming_attention.campaign.scaling.prediction import LONG, model_of

Titled = tuple[str, pd.DataFrame]
"""A panel: its title, and the rows of the summary that it shows."""


def draw_over_ranks(title: str, explanation: str, tables: Tables, found: Iterable[Titled], missing: str) -> Drawn:
    """A panel for each group of points that differ in their ranks, a line for each label of a method.

    Parameters
    ----------
    missing : str
        What to say where there are no groups.
    """
    cells = [_rows(tables, *one) for one in found]
    if not cells:
        return empty(title, missing)
    rows = stack(cells)
    marks = style.marks_of(rows["label"])
    page = Page(title, explanation, len(cells))
    for axis, some in zip(page.axes, cells, strict=True):
        _draw_panel(axis, some, marks)
    notes = [_MODEL] if (rows["source"] == "model").any() else []
    return Drawn(page.finish(legend_of(rows, marks, "label"), notes), rows)


def groups_over_ranks(tables: Tables) -> Iterator[tuple[Panel, int, pd.DataFrame]]:
    """Panel, threads of a rank, and the rows with so many of every method that runs over ranks.

    Of the numbers of threads with several numbers of ranks the least and the most are taken.
    """
    frame = passed(tables)
    frame = frame[frame["method"].isin(frame.loc[frame["ranks"] > 1, "method"])]
    for panel in panels(frame):
        ranks = panel.frame.groupby("threads")["ranks"].nunique()
        several = sorted(ranks.index[ranks > 1])
        for threads in dict.fromkeys([*several[:1], *several[-1:]]):
            yield panel, int(threads), panel.frame[panel.frame["threads"] == threads]


def predictions(tables: Tables, rows: pd.DataFrame) -> pd.DataFrame:
    """For every measured row over several ranks what the model says, as rows of a sidecar."""
    found = []
    for row in rows[(rows["source"] == "measured") & (rows["ranks"] > 1)].to_dict("records"):
        prediction = model_of(tables).predict(row)
        if prediction is None:
            continue
        network = {"reference": LONG, "reference_record": prediction.network}
        row |= {"source": "model", "quantity": "predicted_time", "unit": QUANTITIES["predicted_time"].unit}
        row |= {**network, "reference_digest": prediction.network_digest, "record": "", "record_digest": ""}
        found.append(row | {"confidence": None} | state(row, evaluate(tables, row)))
    return sidecar(found)


def named(panel: Panel, threads: int, *conditions: str) -> str:
    """A panel's title with what it is limited to, threads only if there are several."""
    return titled(panel.title, *conditions, *([f"{threads} threads a rank"] if threads > 1 else []))


def _rows(tables: Tables, title: str, frame: pd.DataFrame) -> pd.DataFrame:
    times = estimate(tables, frame, "time", title)
    return stack([times, predictions(tables, times)])


def _draw_panel(axis: Axes, rows: pd.DataFrame, marks: dict[str, style.Mark]) -> None:
    for (source, label), some in rows.sort_values("ranks").groupby(["source", "label"], sort=False):
        plot(axis, some["ranks"], some, marks[label], open_=source == "model")
    panel_title(axis, rows["panel"].iloc[0])
    axis_of_counts(axis, rows["ranks"], "ranks")
    axis_of_values(axis, "run time (ms)")
    _ideal(axis, rows[rows["source"] == "measured"].sort_values(["ranks", "value"]))


def _ideal(axis: Axes, rows: pd.DataFrame) -> None:
    """From the fastest of the fewest ranks, in proportion to the FLOPs of a rank."""
    first, shares = rows.iloc[0], rows.drop_duplicates("ranks")
    work = [models.flops(workload_of(row)) / row["ranks"] for row in shares.to_dict("records")]
    if len(work) > 1:
        place = {"xytext": (-5, -2), "ha": "right", "va": "top"}
        guide(axis, list(shares["ranks"]), [first["value"] * share / work[0] for share in work], "ideal", **place)


_MODEL = handle("predicted by the scaling model", style.Mark("#777777", "o", "-"), open_=True)
