"""From tables to the rows of a figure: which measurements it shows, as one row per drawn point.

Every figure's rows have the same columns, :data:`SIDECAR`, so that a sidecar can be read, and checked, without knowing
the figure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from streaming_attention.campaign import published
from streaming_attention.campaign.aggregate import LAYOUT, METHOD, WORKLOAD, Tables, frame_of
from streaming_attention.campaign.figures.quantities import QUANTITIES, evaluate, known, state
from streaming_attention.campaign.statistics import CONFIDENCE
from streaming_attention.campaign.words import say_field, say_shape
from streaming_attention.registry import METHODS

_NULLABLE = {"int64": "Int64", "bool": "boolean"}
SIDECAR = {
    "panel": "str",
    "source": "str",
    "quantity": "str",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "unit": "str",
    "confidence": "float64",
    **METHOD,
    "block": "Int64",
    "status": "str",
    **{name: _NULLABLE.get(kind, kind) for name, kind in (WORKLOAD | LAYOUT).items()},
    "intensity": "float64",
    "rank": "Int64",
    "stage": "Int64",
    "record": "str",
    "record_digest": "str",
    "reference": "str",
    "reference_record": "str",
    "reference_digest": "str",
}
"""Columns and types of every sidecar.

``source`` is measured, published or model; ``low`` and ``high`` bound the interval and are empty where none is known;
``record`` holds the ids of the records behind the value, separated by spaces, or ``published:<line>``; ``reference``
is what the value was compared with: a method of the same records, or a ceiling. ``rank`` and ``stage`` say which part
of a timeline a row is.
"""

PUBLISHED_BLOCK = 128
SHAPE = ["workload", "batch", "heads", "kv_heads", "head_dim", "causal", "dtype"]


@dataclass(frozen=True)
class Options:
    """What a campaign may ask of its figures.

    Parameters
    ----------
    published : bool
        Draw the published numbers beside ours where they are of the same quantity.
    reference : str
        The method that speedups are relative to, where it was measured.
    keys : int, optional
        The T of the figures that show a single one; by default the T at which most methods passed.
    """

    published: bool = True
    reference: str = "naive"
    keys: int | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure and exactly the rows that it shows, with the columns of :data:`SIDECAR`."""

    figure: Figure
    rows: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Panel:
    """The rows of one workload at all its lengths, in one shape unless it says otherwise.

    Parameters
    ----------
    title : str
    frame : DataFrame
        Rows of the summary.
    square : bool
        Whether queries = keys = T, so that work grows with T squared.
    mixed : bool
        Whether the frame holds several shapes of the workload, on one layout.
    """

    title: str
    frame: pd.DataFrame
    square: bool
    mixed: bool = False

    def published(self, options: Options) -> pd.DataFrame:
        """Published run times of the same workload at its usual block, shaped like rows of the summary; often none."""
        times = published_times()
        alike = times["head_dim"].isin(self.frame["head_dim"]) & options.published & (not self.mixed)
        single = (self.frame[["batch", "heads", "kv_heads", "queries"]] == 1).all(axis=None)
        usual = times["block"].fillna(PUBLISHED_BLOCK) == PUBLISHED_BLOCK
        return times[alike & single & usual & (self.frame["dtype"] == "fp32").all()]


def summary_rows(tables: Tables) -> pd.DataFrame:
    """Every record x method, whatever its status, ready to be selected from."""
    blocks = [
        block_of(method, options) for method, options in tables.summary[["method", "options"]].itertuples(index=False)
    ]
    return tables.summary.assign(
        source="measured",
        block=pd.array(blocks, dtype="Int64"),
        reference="",
        reference_record="",
        reference_digest="",
    )


def passed(tables: Tables) -> pd.DataFrame:
    """Every record x method that has a timing."""
    frame = summary_rows(tables)
    return frame[frame["status"] == "passed"]


def block_of(method: str, options: str) -> int | None:
    """Block size that a method ran with: the given one, or the registry's default; None if it has no such option."""
    given = json.loads(options).get("block")
    registered = METHODS[method].options if method in METHODS else {}
    return given if given is not None or "block" not in registered else registered["block"].default


def panels(frame: pd.DataFrame) -> Iterator[Panel]:
    """The rows by workload, lengths together; in a workload whose queries don't follow its keys, by queries too."""
    for _, rows in frame.groupby(SHAPE):
        if (rows["queries"] == rows["keys"]).all() and (rows["queries"] > 1).any():
            yield Panel(_title(rows, True), rows, True)
            continue
        for _, some in rows.groupby("queries"):
            yield Panel(_title(some, False), some, False)


def join_shapes(every: Iterable[Panel]) -> list[Panel]:
    """Panels in which shapes of one workload that ran on a single layout, as in a sweep over heads, stand together.

    Each would be a panel of one point. The other shapes of the workload that ran on that layout join them.
    """
    every = list(every)
    lone = [panel for panel in every if len(panel.frame[list(LAYOUT)].drop_duplicates()) == 1]
    if len(lone) < 2:
        return every
    places = pd.concat(panel.frame for panel in lone)[["workload", *LAYOUT, *SHAPE[1:]]].drop_duplicates()
    counts = places.groupby(["workload", *LAYOUT]).size()
    together = counts[counts > 1].reset_index()[["workload", *LAYOUT]]
    frame = pd.concat(panel.frame for panel in every)
    joined = [frame.merge(place.to_frame().T.astype({**LAYOUT, "workload": "str"})) for _, place in together.iterrows()]
    taken = set(pd.concat(joined)["point"]) if joined else set()
    kept = [panel for panel in every if panel not in lone or not set(panel.frame["point"]) <= taken]
    return kept + [Panel(_common_title(rows), rows, bool((rows["queries"] > 1).all()), mixed=True) for rows in joined]


def _common_title(rows: pd.DataFrame) -> str:
    """What all shapes of the panel share."""
    shared = [say_field(name, rows[name].iloc[0]) for name in SHAPE[1:] if rows[name].nunique() == 1]
    return f"{rows['workload'].iloc[0]}: {', '.join(shared)}"


def with_lengths(every: Iterable[Panel]) -> list[Panel]:
    """The panels with several T; all of them if none has."""
    every = list(every)
    return [panel for panel in every if panel.frame["keys"].nunique() > 1] or every


def _title(rows: pd.DataFrame, square: bool) -> str:
    return f"{rows['workload'].iloc[0]}: {say_shape(rows.iloc[0], square)}"


def titled(title: str, *conditions: str) -> str:
    """A panel's title with what the panel is limited to, like ``T = 8K``, put before the colon."""
    name, _, shape = title.partition(": ")
    return f"{', '.join([name, *conditions])}: {shape}"


def representatives(frame: pd.DataFrame) -> pd.DataFrame:
    """One variant of each method in each workload: that measured at most points, of several such the default."""
    chosen = {(workload, _representative(rows)) for (workload, _), rows in frame.groupby(["workload", "method"])}
    pairs = zip(frame["workload"], frame["label"], strict=True)
    return frame[np.array([pair in chosen for pair in pairs], dtype=bool)]


def _representative(rows: pd.DataFrame) -> str:
    counts = rows.groupby(["label", "method", "options"]).size()
    return max(counts.index, key=lambda key: (counts[key], _is_default(*key[1:]), key[0]))[0]


def _is_default(method: str, options: str) -> bool:
    given = json.loads(options)
    return not given or (method in METHODS and METHODS[method].complete({}) == METHODS[method].complete({}) | given)


def pick_keys(frame: pd.DataFrame, options: Options) -> int:
    """The T asked for if it was measured, else that with most points, and of several such the largest."""
    points = frame.drop_duplicates([*WORKLOAD, *LAYOUT, "label"])
    counts = points.groupby("keys").size()
    return options.keys if options.keys in counts.index else int(counts[counts == counts.max()].index.max())


def compare_within(frame: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Only rows whose record holds the reference too; the reference is theirs to be compared with."""
    holders = frame.loc[frame["label"] == reference, "record"]
    rows = frame[frame["record"].isin(holders)]
    return rows.assign(reference=reference, reference_record=rows["record"], reference_digest=rows["record_digest"])


def compare_with_ceiling(frame: pd.DataFrame, tables: Tables, name: str) -> pd.DataFrame:
    """Only rows whose layout has the ceiling; it is theirs to be compared with."""
    ceilings = tables.ceilings[(tables.ceilings["name"] == name) & (tables.ceilings["status"] == "passed")]
    columns = {"record": "reference_record", "record_digest": "reference_digest"}
    known_ones = ceilings[[*LAYOUT, *columns]].rename(columns=columns)
    kept = frame.drop(columns=list(columns.values()))
    return kept.merge(known_ones, on=list(LAYOUT)).assign(reference=name)


def estimate(tables: Tables, frame: pd.DataFrame, quantity: str, panel: str = "") -> pd.DataFrame:
    """One sidecar row per point and method: the quantity over all repeats, with its interval."""
    point = [*WORKLOAD, *LAYOUT, *METHOD]
    groups = frame.groupby(point, sort=False, dropna=False) if len(frame) else ()
    return sidecar(_estimated(tables, rows, quantity, panel) for _, rows in groups)


def estimate_ceilings(tables: Tables, names: Iterable[str], quantity: str, panel: str = "") -> pd.DataFrame:
    """One sidecar row per layout and ceiling, with its name as label."""
    frame = tables.ceilings[tables.ceilings["name"].isin(names) & (tables.ceilings["status"] == "passed")]
    blank = dict.fromkeys(("method", "options", "reference", "reference_record", "reference_digest"), "")
    frame = frame.assign(label=frame["name"], source="measured", **blank, **dict.fromkeys(WORKLOAD, pd.NA))
    return estimate(tables, frame, quantity, panel)


def _estimated(tables: Tables, rows: pd.DataFrame, quantity: str, panel: str) -> dict:
    joined = ("record", "record_digest", "reference_record", "reference_digest")
    row = rows.iloc[0].to_dict() | {name: " ".join(dict.fromkeys(rows[name])) for name in joined}
    row |= {"panel": panel, "quantity": quantity, "unit": QUANTITIES[quantity].unit}
    return row | state(row, evaluate(tables, row))


def sidecar(rows: Iterable[dict]) -> pd.DataFrame:
    """Rows as a table with the columns and types of :data:`SIDECAR`; what a row doesn't state stays empty."""
    return frame_of(rows, SIDECAR)


def stack(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Several tables of rows as one; of none, the header."""
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True).astype(SIDECAR) if frames else sidecar([])


def without_record(row: dict) -> dict:
    """A row that no measurement stands behind: a guide that follows from the workload alone."""
    return row | dict.fromkeys(("record", "record_digest", "reference", "reference_record", "reference_digest"), "")


def published_times() -> pd.DataFrame:
    """The published run times as rows that :func:`estimate` takes."""
    times = published.load_times()
    options = [json.dumps({"block": int(block)}) if known(block) else "{}" for block in times["block"]]
    shape = {"workload": "query", "batch": 1, "heads": 1, "kv_heads": 1, "queries": 1, "causal": False, "dtype": "fp32"}
    return _as_published(times.assign(label=times["variant"], options=options, **shape))


def published_bandwidth() -> pd.DataFrame:
    """The published STREAM rates as rows that :func:`estimate` takes."""
    rates = published.load_bandwidth()
    empty = dict.fromkeys(WORKLOAD) | {"method": "", "options": ""}
    return _as_published(rates.assign(label=rates["name"], **empty))


def _as_published(frame: pd.DataFrame) -> pd.DataFrame:
    layout = dict.fromkeys(("nodes", "sockets", "ranks_per_socket"), pd.NA) | {"binding": ""}
    blank = dict.fromkeys(("reference", "reference_record", "reference_digest"), "")
    return frame.rename(columns={"id": "record"}).assign(
        source="published",
        status="published",
        record_digest=published.digest(),
        confidence=CONFIDENCE,
        **layout,
        **blank,
    )
