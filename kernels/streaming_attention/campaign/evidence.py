"""What is on disk of a campaign, read once for the verification: its records, and the tables that follow from them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from streaming_attention.campaign.aggregate import LAYOUT, METHOD, SCHEMAS, WORKLOAD, Tables, aggregate, read_csv
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.record import RecordError, load_record
from streaming_attention.machine.layout import Layout

PARTS = {"figures", "tables", "records"}
"""What a written provenance consists of."""
_ROW_KEY = {
    "measurements": ["record", "label", "sample"],
    "summary": ["record", "label"],
    "ceilings": ["record", "name"],
}


class Evidence:
    """Records that can be trusted, and complaints about those that can't.

    Parameters
    ----------
    folder : Folder

    Attributes
    ----------
    records : dict
        Record by file name, relative to the folder.
    damaged : set of str
        Names of record files that can't be trusted.
    problems : list of str
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self.records: dict[str, dict] = {}
        self.damaged: set[str] = set()
        self.problems: list[str] = []
        for path in folder.records():
            self._read(path)
        self.by_id = {record["id"]: record for record in self.records.values()}

    def _read(self, path: Path) -> None:
        try:
            self.records[self.folder.name(path)] = load_record(path)
        except RecordError as error:
            self.damaged.add(self.folder.name(path))
            self.problems.append(f"{self.folder.name(path)}: {error}")

    def load_trace(self, path: Path) -> dict | None:
        """The written provenance, or None with a complaint."""
        try:
            written = json.loads(path.read_text())
            if not isinstance(written, dict) or not set(written) >= PARTS:
                raise ValueError(f"it lacks {', '.join(sorted(PARTS))}")
        except (OSError, ValueError) as error:
            self.problems.append(f"{path.name}: can't be read ({error})")
            return None
        return written

    @functools.cached_property
    def tables(self) -> Tables:
        """The tables computed again, from the records alone."""
        return aggregate(self.records.values())

    def method(self, record: str, label: str) -> dict | None:
        """The entry of a method, or of a ceiling, in a record; None if there is none."""
        found = self.by_id[record]
        entries = {entry["label"]: entry for entry in found.get("methods", ())}
        entries |= {entry["name"]: entry for entry in found.get("ceilings", ())}
        return entries.get(label)

    def identity(self, record: str, label: str) -> dict:
        """What a sidecar row about a method, or a ceiling, must say: workload, layout, method and status."""
        return self._identities[record, label]

    @functools.cached_property
    def _identities(self) -> dict[tuple[str, str], dict]:
        found = {}
        for frame, key in ((self.tables.summary, "label"), (self.tables.ceilings, "name")):
            stated = [name for name in (*WORKLOAD, *LAYOUT, *METHOD, "status") if name in frame]
            keys = zip(frame["record"], frame[key], strict=True)
            found |= dict(zip(keys, frame[stated].to_dict("records"), strict=True))
        return found

    def timed(self) -> set[tuple[str, str, int]]:
        """Method, dtype and ranks (1 or 2 for more than one) of everything that has timings."""
        return {
            (entry["method"], record["workload"]["dtype"], min(2, Layout(**record["layout"]).ranks))
            for record in self.records.values()
            if record["kind"] == "attention"
            for entry in record["methods"]
            if entry["samples"]
        }

    def gate_status(self, path: Path) -> str:
        """Status in a gate record; ``missing`` or ``damaged`` where it can't be read."""
        if not path.is_file():
            return "missing"
        try:
            return load_record(path)["status"]
        except RecordError:
            return "damaged"

    def compare_table(self, name: str) -> Iterator[str]:
        """How an aggregated table on disk differs from what the records give."""
        file = f"tables/{name}.csv"
        try:
            found = read_csv(self.folder.path / file, SCHEMAS[name])
        except (OSError, ValueError) as error:
            yield f"{file}: can't be read ({error})"
            return
        expected = getattr(self.tables, name)
        absent = sorted(set(expected["record"]) - set(found["record"]))
        stray = sorted(set(found["record"]) - set(expected["record"]))
        yield from (f"{file}: record {record} is not in the table" for record in absent)
        yield from (f"{file}: record {record} is in the table but not on disk" for record in stray)
        if not absent and not stray and not _equal(found, expected):
            yield f"{file}: {_first_difference(found, expected, _ROW_KEY[name])}"


def _equal(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    return found.reset_index(drop=True).equals(expected.reset_index(drop=True))


def _first_difference(found: pd.DataFrame, expected: pd.DataFrame, key: list[str]) -> str:
    """The first row and column in which two tables of the same records differ."""
    found, expected = (frame.set_index(key).sort_index() for frame in (found, expected))
    if not found.index.equals(expected.index):
        rows = found.index.symmetric_difference(expected.index)
        return f"row {_say(rows[0])} is in only one of the table and the records" if len(rows) else "repeated rows"
    for column in expected.columns:
        same = (found[column] == expected[column]) | (found[column].isna() & expected[column].isna())
        if not same.all():
            return f"row {_say(same[~same].index[0])}: {column} differs from the record"
    return "rows are in another order"


def _say(row: tuple) -> str:
    return " ".join(map(str, row))
