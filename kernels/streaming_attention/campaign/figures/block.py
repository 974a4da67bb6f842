"""Block size: time with each block over the time with one of them, inside the same record."""

from __future__ import annotations

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.axes import axis_of_counts, axis_of_values, plot
from streaming_attention.campaign.figures.data import (
    PUBLISHED_BLOCK,
    Drawn,
    Options,
    Panel,
    compare_within,
    estimate,
    panels,
    passed,
    published_times,
    stack,
    titled,
)
from streaming_attention.campaign.figures.layouts import narrowest_and_widest, on_layout
from streaming_attention.campaign.figures.page import Page, empty, handle, notes_of, panel_title
from streaming_attention.campaign.words import say_layout, say_length

TITLE = FIGURES["block"]
EXPLANATION = """Median time with a block over that with {reference}, inside the same record; below 1 is faster. The
band is ±10 %. Bars are bootstrap intervals of the ratio over samples and repeats. The published blocks ran on 16
threads."""
MARKERS = "osD^vPX<>"
TOLERANCE = 0.1
"""Half-height of the shaded band: the publication says that blocks differ by less than this."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Relative time over block size, a panel per workload, method and layout, a line per T."""
    shown = [rows for panel in panels(_with_blocks(passed(tables))) for rows in _panels(tables, panel, options)]
    if not shown:
        return empty(TITLE, "no passed measurement of two block sizes in one record in this campaign")
    rows = stack(shown)
    reference = ", ".join(rows.loc[rows["source"] == "measured", "reference"].drop_duplicates())
    explanation = EXPLANATION.format(reference=reference)
    page = Page(TITLE, explanation, len(shown))
    looks = _looks(rows)
    for axis, some in zip(page.axes, shown, strict=True):
        _draw_panel(axis, some, looks)
    handles = [handle(f"T = {say_length(keys)}", mark) for keys, mark in looks.items()]
    return Drawn(page.finish(handles, notes_of(rows)), rows)


def _with_blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of methods that one record holds with several blocks; a block that is given goes before the default."""
    frame = frame[frame["block"].notna()]
    frame = frame.assign(given=frame["options"].str.contains('"block"', regex=False))
    frame = frame.sort_values("given", ascending=False, kind="stable")
    frame = frame.drop_duplicates(["record", "method", "block"]).sort_index()
    return frame[frame.groupby(["record", "method"])["block"].transform("nunique") > 1]


def _panels(tables: Tables, panel: Panel, options: Options) -> list[pd.DataFrame]:
    shown = []
    for method, some in panel.frame.groupby("method", sort=False):
        single = some[some["ranks"] == 1]
        some = compare_within(single if len(single) else some, _reference(some))
        layouts = narrowest_and_widest(some)
        for layout in layouts:
            title = titled(panel.title, method, say_layout(layout))
            rows = estimate(tables, on_layout(some, layout), "relative_time", title)
            theirs = _published(panel, method, options) if layout is layouts[-1] else published_times().head(0)
            shown.append(stack([rows, estimate(tables, theirs, "relative_time", title)]))
    return shown


def _reference(frame: pd.DataFrame) -> str:
    """The label that others are divided by: the published block if measured, else the block nearest to it."""
    blocks = frame[["label", "block"]].drop_duplicates()
    distance = (blocks["block"] - PUBLISHED_BLOCK).abs()
    return blocks.assign(distance=distance).sort_values(["distance", "block", "label"])["label"].iloc[0]


def _published(panel: Panel, method: str, options: Options) -> pd.DataFrame:
    """The published times at several blocks, each over that at the published block; one layout only has them."""
    if panel.published(options).empty:
        return published_times().head(0)
    times = published_times()
    several = times.groupby(["label", "keys", "ranks", "threads"])["block"].transform("nunique") > 1
    times = times[(times["method"] == method) & several]
    base = times[times["block"] == PUBLISHED_BLOCK].iloc[0]
    columns = {"reference": "label", "reference_record": "record", "reference_digest": "record_digest"}
    return times.assign(**{name: base[column] for name, column in columns.items()})


def _looks(rows: pd.DataFrame) -> dict[int, style.Mark]:
    """Light to dark with T, and another marker each."""
    lengths = sorted(rows["keys"].unique())
    shades = colormaps["viridis_r"]
    positions = [0.25 + 0.7 * index / max(1, len(lengths) - 1) for index in range(len(lengths))]
    return {
        int(keys): style.Mark(shades(at), MARKERS[index % len(MARKERS)], "-")
        for index, (keys, at) in enumerate(zip(lengths, positions, strict=True))
    }


def _draw_panel(axis: Axes, rows: pd.DataFrame, looks: dict[int, style.Mark]) -> None:
    axis.axhspan(1 - TOLERANCE, 1 + TOLERANCE, color="#efefef", zorder=0)
    axis.axhline(1.0, color="#999999", linewidth=0.9, linestyle=(0, (6, 3)), zorder=1.5)
    lengths = list(looks)
    for (source, keys), some in rows.groupby(["source", "keys"]):
        some = some.sort_values("block")
        shift = 1.0 + 0.02 * (lengths.index(keys) - (len(lengths) - 1) / 2)
        plot(axis, some["block"].astype(float) * shift, some, looks[keys], open_=source == "published")
    panel_title(axis, rows["panel"].iloc[0])
    axis_of_counts(axis, rows["block"].astype(int), "block (keys)")
    axis_of_values(axis, "time relative to the reference block", log=False)
