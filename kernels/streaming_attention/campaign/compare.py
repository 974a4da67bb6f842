"""Two campaigns or machines side by side: which points got faster or slower, and where that can't be told.

Absolute times of different runs are only ever compared with their intervals, and the answer may be ``ambiguous``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import LAYOUT, MEASUREMENTS, WORKLOAD, frame_of, read_csv, write_csv
from streaming_attention.campaign.figures import style
from streaming_attention.campaign.figures.axes import plain_log
from streaming_attention.campaign.figures.page import WIDTH, Page, empty, handle
from streaming_attention.campaign.files import write_atomically
from streaming_attention.campaign.statistics import CONFIDENCE, Interval, ratio_of_pools
from streaming_attention.campaign.tables.common import described
from streaming_attention.campaign.words import say_layout, say_length

TOLERANCE = 0.05
"""Ratios within this share of 1 count as the same."""
VERDICTS = ("faster", "slower", "same", "ambiguous", "only in base", "only in other")
COMPARISON = {
    "point": "str",
    **WORKLOAD,
    **LAYOUT,
    "label": "str",
    "verdict": "str",
    **dict.fromkeys(("ratio", "low", "high"), "float64"),
    **dict.fromkeys(("base_milliseconds", "other_milliseconds"), "float64"),
    **dict.fromkeys(("base_records", "other_records"), "str"),
}
DRAWN_ROWS = 60
"""A figure shows at most so many points, those that differ most."""
_KEY = ["point", *WORKLOAD, *LAYOUT, "label"]
_MARKS = {
    "faster": style.Mark("#009E73", "o", "-"),
    "slower": style.Mark("#D55E00", "s", "-"),
    "same": style.Mark("#0072B2", "D", "-"),
    "ambiguous": style.Mark("#777777", "v", "-"),
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Points of two measurement tables joined by point and method.

    Parameters
    ----------
    rows : DataFrame
        Columns are :data:`COMPARISON`; ``ratio`` is the other's median time over the base's.
    base, other : str
        What the two sides are called.
    machines : str
        A sentence that says whether the processors and hosts are the same.
    tolerance : float
    """

    rows: pd.DataFrame
    base: str
    other: str
    machines: str
    tolerance: float


def read_measurements(path: str | os.PathLike) -> pd.DataFrame:
    """A campaign's ``measurements.csv``.

    Raises
    ------
    ValueError
        It isn't one.
    """
    return read_csv(path, MEASUREMENTS)


def compare(
    base: pd.DataFrame,
    other: pd.DataFrame,
    tolerance: float = TOLERANCE,
    names: tuple[str, str] | None = None,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Judge every point and method of two measurement tables.

    Parameters
    ----------
    base, other : DataFrame
        As :func:`read_measurements` returns them.
    tolerance : float
        An interval of the ratio within 1 / (1 + tolerance) and 1 + tolerance is ``same``, one wholly below ``faster``,
        one wholly above ``slower``, any other ``ambiguous``.
    names : (str, str), optional
        Of the two sides; by default the names of their campaigns.

    Raises
    ------
    ValueError
        The tolerance is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance: {tolerance} is not positive")
    sides = [dict(list(frame.groupby(_KEY))) for frame in (base, other)]
    keys = sorted(set(sides[0]) | set(sides[1]), key=str)
    rows = [_row(key, [side.get(key) for side in sides], tolerance, confidence) for key in keys]
    names = names or (_campaign(base, "base"), _campaign(other, "other"))
    return Comparison(frame_of(rows, COMPARISON), *names, describe_machines(base, other), tolerance)


def judge(ratio: Interval, tolerance: float = TOLERANCE) -> str:
    """Verdict on the interval of a ratio of times."""
    lower, upper = 1 / (1 + tolerance), 1 + tolerance
    if ratio.high < lower:
        return "faster"
    if ratio.low > upper:
        return "slower"
    return "same" if lower <= ratio.low and ratio.high <= upper else "ambiguous"


def describe_machines(base: pd.DataFrame, other: pd.DataFrame) -> str:
    """One sentence on whether both sides ran on the same processors and hosts."""
    cpus, hosts = ([_distinct(frame, column) for frame in (base, other)] for column in ("cpu", "host"))
    if cpus[0] != cpus[1]:
        return f"The machines differ: {cpus[0]} against {cpus[1]}; a ratio tells of machines as much as of code."
    if hosts[0] != hosts[1]:
        return f"The same processor, {cpus[0]}, on different hosts: {hosts[0]} against {hosts[1]}."
    return f"The same machine: {cpus[0]} on {hosts[0]}."


def write_comparison(
    comparison: Comparison, csv: str | os.PathLike, page: str | os.PathLike, svg: str | os.PathLike
) -> None:
    """Write the rows, a page of HTML and a figure."""
    write_csv(comparison.rows, csv)
    write_atomically(page, render_page(comparison))
    write_atomically(svg, style.render(draw(comparison)))


def render_page(comparison: Comparison) -> str:
    """The comparison as a page: what differs, how many of each verdict, and every point."""
    rows = comparison.rows
    columns = {"workload": "workload", "length": "T", "shape": "shape", "layout": "layout", "label": "method"} | {
        "verdict": "verdict",
        "ratio": f"{comparison.other} / {comparison.base}",
        "low": "low",
        "high": "high",
        "base_milliseconds": f"{comparison.base} (ms)",
        "other_milliseconds": f"{comparison.other} (ms)",
    }
    numbers = ("ratio", "low", "high", "base_milliseconds", "other_milliseconds")
    table = html.table(described(rows), columns, dict.fromkeys(numbers, html.number(4)), mark="verdict")
    intro = html.paragraph(f"{comparison.machines} {_counts(rows)} {_rule(comparison)}")
    return html.page(f"{comparison.other} against {comparison.base}", intro, table)


@style.styled
def draw(comparison: Comparison):
    """Ratios with their intervals, a line per point and method, the most different on top."""
    rows = comparison.rows.dropna(subset="ratio")
    title = f"{comparison.other} against {comparison.base}"
    if rows.empty:
        return empty(title, "the two campaigns have no point in common").figure
    distance = np.log(rows["ratio"]).abs()
    shown = rows.loc[distance.sort_values(ascending=False, kind="stable").index[:DRAWN_ROWS]].sort_values("ratio")
    left_out = f" Of {len(rows)} points the {len(shown)} most different are shown." if len(shown) < len(rows) else ""
    explanation = f"{comparison.machines} {_rule(comparison)}{left_out}"
    page = Page(title, explanation, 1, width=WIDTH, height=0.9 + 0.23 * len(shown))
    _draw_rows(page.axes[0], shown, comparison)
    present = [verdict for verdict in _MARKS if verdict in set(shown["verdict"])]
    return page.finish([_verdict_handle(verdict) for verdict in present])


def _row(key: tuple, sides: list[pd.DataFrame | None], tolerance: float, confidence: float) -> dict:
    row = dict(zip(_KEY, key, strict=True))
    groups = {}
    for name, side in zip(("base", "other"), sides, strict=True):
        if side is not None:
            groups[name] = [samples.to_numpy() for _, samples in side.groupby("record")["seconds"]]
            row[f"{name}_records"] = " ".join(dict.fromkeys(side["record"]))
            row[f"{name}_milliseconds"] = 1e3 * float(np.median([np.median(samples) for samples in groups[name]]))
    if len(groups) < 2:
        return row | {"verdict": f"only in {next(iter(groups))}"}
    ratio = ratio_of_pools(groups["other"], groups["base"], confidence)
    return row | {"verdict": judge(ratio, tolerance)} | dict(zip(("ratio", "low", "high"), ratio, strict=True))


def _distinct(frame: pd.DataFrame, column: str) -> str:
    return " + ".join(sorted(frame[column].unique())) or "unknown"


def _campaign(frame: pd.DataFrame, otherwise: str) -> str:
    return " + ".join(sorted(frame["campaign"].unique())) or otherwise


def _counts(rows: pd.DataFrame) -> str:
    counts = rows["verdict"].value_counts()
    return "Verdicts: " + (", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts) or "none") + "."


def _rule(comparison: Comparison) -> str:
    share = f"{100 * comparison.tolerance:g} %"
    return (
        f"The ratio is the median time of {comparison.other} over that of {comparison.base}, below 1 is faster. "
        f"A bootstrap interval within {share} of 1 is the same, wholly beyond it faster or slower, else ambiguous."
    )


def _draw_rows(axis: Axes, rows: pd.DataFrame, comparison: Comparison) -> None:
    axis.axvspan(1 / (1 + comparison.tolerance), 1 + comparison.tolerance, color="#efefef", zorder=0)
    axis.axvline(1.0, color="#999999", linewidth=0.9, linestyle=(0, (6, 3)), zorder=1)
    for position, row in enumerate(rows.to_dict("records")):
        mark = _MARKS[row["verdict"]]
        if row["low"] > 0 and np.isfinite(row["high"]):
            axis.plot([row["low"], row["high"]], [position, position], color=mark.color, linewidth=1.4)
        axis.plot([row["ratio"]], [position], marker=mark.marker, color=mark.color, markeredgecolor="white")
    axis.set_yticks(range(len(rows)), [_name_row(row) for row in rows.to_dict("records")], fontsize=7.5)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xscale("log")
    axis.margins(x=0.08)
    plain_log(axis.xaxis)
    axis.grid(axis="x", color=style.FAINT, linewidth=0.6)
    axis.set_xlabel(f"time of {comparison.other} / time of {comparison.base}")


def _name_row(row: dict) -> str:
    return f"{row['workload']}, T = {say_length(row['keys'])}, {say_layout(row)}, {row['label']}"


def _verdict_handle(verdict: str) -> Line2D:
    return handle(verdict, _MARKS[verdict])
