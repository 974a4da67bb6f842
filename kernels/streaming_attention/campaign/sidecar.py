"""Check a figure's sidecar against the records: every row's records, digests, statuses and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from streaming_attention.campaign import published
from streaming_attention.campaign.aggregate import LAYOUT, METHOD, WORKLOAD, read_csv
from streaming_attention.campaign.evidence import Evidence
from streaming_attention.campaign.figures.data import SIDECAR
from streaming_attention.campaign.figures.quantities import QUANTITIES, evaluate, known, state

PRECISION = 1e-9
"""Relative difference up to which two numbers are the same: they follow from the same samples by the same steps."""
WITHIN = ("speedup", "relative_time")
"""Quantities that are ratios inside one record."""


def check_sidecar(path: Path, name: str, evidence: Evidence) -> Iterator[str]:
    """Complaints about a sidecar; each names the file and the line.

    Parameters
    ----------
    path : Path
    name : str
        What to call it.
    evidence : Evidence
        The records that it must agree with.
    """
    try:
        rows = read_csv(path, SIDECAR).to_dict("records")
    except (OSError, ValueError) as error:
        yield f"{name}: can't be read ({error})"
        return
    for line, row in enumerate(rows, start=2):
        for complaint in _check_row(row, evidence):
            yield f"{name}: line {line}: {complaint}"


def _check_row(row: dict, evidence: Evidence) -> Iterator[str]:
    if row["quantity"] not in QUANTITIES:
        yield f"unknown quantity {row['quantity']!r}"
        return
    complaints = [*_check_sources(row, evidence)]
    yield from complaints or _check_value(row, evidence)


def _check_sources(row: dict, evidence: Evidence) -> Iterator[str]:
    """Each record that the row names must be there, unchanged, and passed where a timing is shown."""
    if row["source"] not in ("measured", "published", "model"):
        yield f"source {row['source']!r} is not measured, published or model"
    if row["source"] == "measured" and not row["record"]:
        yield "a measured value without a record"
    if row["source"] == "measured" and row["quantity"] in WITHIN and row["record"] != row["reference_record"]:
        yield f"a ratio between records: {row['record']} and {row['reference_record']}"
    yield from _check_side(row, "record", "record_digest", row["label"], evidence)
    yield from _check_side(row, "reference_record", "reference_digest", row["reference"], evidence)


def _check_side(row: dict, ids: str, digests: str, label: str, evidence: Evidence) -> Iterator[str]:
    named, sealed = row[ids].split(), row[digests].split()
    is_published = [record.startswith("published:") for record in named]
    if any(is_published) or row["source"] == "published":
        yield from _check_published(row, named, sealed, all(is_published))
        return
    if len(named) != len(sealed):
        yield f"{len(named)} records but {len(sealed)} digests"
        return
    for record, digest in zip(named, sealed, strict=True):
        yield from _check_record(row, record, digest, label, evidence)


def _check_published(row: dict, named: list[str], sealed: list[str], all_published: bool) -> Iterator[str]:
    if row["source"] != "published" or not all_published:
        yield f"source {row['source']} does not fit the record {' '.join(named)}"
    if set(sealed) - {published.digest()}:
        yield "the published data have another digest"
    for record in named:
        try:
            published.lookup(record)
        except KeyError:
            yield f"{record} is not in the published data"


def _check_record(row: dict, record: str, digest: str, label: str, evidence: Evidence) -> Iterator[str]:
    if record not in evidence.by_id:
        yield f"record {record} does not exist or can't be trusted"
        return
    if evidence.by_id[record]["digest"] != digest:
        yield f"record {record} has the digest {evidence.by_id[record]['digest']}, the row says {digest}"
    entry = evidence.method(record, label)
    if entry is None:
        yield f"record {record} holds no {label!r}"
        return
    if QUANTITIES[row["quantity"]].timing and known(row["value"]) and entry["status"] != "passed":
        yield f"a timing of {label} in record {record}, whose status is {entry['status']}"
    if not known(row["value"]) and entry["status"] == "passed":
        yield f"no value for {label}, which passed in record {record}"
    yield from _check_identity(row, record, label, evidence)


def _check_identity(row: dict, record: str, label: str, evidence: Evidence) -> Iterator[str]:
    """The row must speak of the record's own workload and layout; and of its method, where it is not the reference."""
    columns = [*LAYOUT] if label != row["label"] else [*WORKLOAD, *LAYOUT, *METHOD, "status"]
    stated = evidence.identity(record, label)
    for name in (name for name in columns if name in stated):
        if row[name] != stated[name]:
            yield f"{name} {row[name]} is not the {stated[name]} of record {record}"


def _check_value(row: dict, evidence: Evidence) -> Iterator[str]:
    if not known(row["value"]):
        return
    try:
        expected = state(row, evaluate(evidence.tables, row))
    except (KeyError, ValueError, TypeError) as error:
        yield f"the value can't be computed again ({error})"
        return
    for column, value in expected.items():
        if not _same(row[column], value):
            yield f"{column} {row[column]} differs from {value}, which follows from record {row['record'] or 'model'}"


def _same(one: float, other: float | None) -> bool:
    if pd.isna(one) or pd.isna(other):
        return pd.isna(one) and pd.isna(other)
    return math.isclose(one, other, rel_tol=PRECISION, abs_tol=0.0)
