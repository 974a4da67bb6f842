"""Where every number of the report comes from, written down once and walked back again on demand.

:func:`trace` lists the files of a finished campaign with their digests and who is made of whom. :func:`verify` walks
figure -> sidecar -> records -> log on what is on disk now and says, in one line each, everything that does not hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from streaming_attention.campaign import published
from streaming_attention.campaign.aggregate import SCHEMAS, read_csv
from streaming_attention.campaign.environment import git_commit
from streaming_attention.campaign.evidence import Evidence
from streaming_attention.campaign.figures import FIGURES
from streaming_attention.campaign.figures.data import SIDECAR
from streaming_attention.campaign.files import sha256_of, write_json
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.record import load_record
from streaming_attention.campaign.sidecar import check_sidecar

NAME = "provenance.json"


def trace(campaign: str | os.PathLike) -> dict:
    """What a campaign's figures and tables are made of, as ``provenance.json`` holds it.

    Paths are relative to the campaign's folder. Every figure comes with the digests of its image and its sidecar, the
    rule that draws it and the records behind it; every record with its digest, its commit, its log and that digest.

    Raises
    ------
    FileNotFoundError
        A figure, a sidecar or a log is not there.
    streaming_attention.campaign.record.RecordError
        A record can't be trusted.
    """
    folder = Folder(campaign)
    records = {path: load_record(path) for path in folder.records()}
    return {
        "schema": 1,
        "campaign": folder.path.name,
        "commit": git_commit()[0],
        "published": published.digest(),
        "figures": {name: _figure(folder, name) for name in FIGURES},
        "tables": {folder.name(path): sha256_of(path) for path in folder.files("tables/*")},
        "records": {folder.name(path): _record(folder, record) for path, record in records.items()},
    }


def write_trace(campaign: str | os.PathLike, output: str | os.PathLike | None = None) -> None:
    """Write :func:`trace` to ``provenance.json`` in the campaign's folder, or to ``output``."""
    write_json(output or Path(campaign) / NAME, trace(campaign))


def verify(campaign: str | os.PathLike) -> list[str]:
    """Everything about a campaign's provenance that does not hold now; empty if all of it does.

    Looked at: the digests of figures, sidecars, tables, records and logs; each row of each sidecar, whose value and
    interval are computed again from the samples of the records it names; that only methods with status ``passed`` have
    timings, and only after a passed gate; that the aggregated tables hold all records and nothing else.
    """
    folder = Folder(campaign)
    evidence = Evidence(folder)
    written = evidence.load_trace(folder.path / NAME)
    if written is None:
        return evidence.problems
    return [
        *evidence.problems,
        *_check_records(folder, evidence, written["records"]),
        *_check_gates(folder, evidence),
        *_check_tables(folder, evidence, written["tables"]),
        *_check_figures(folder, evidence, written["figures"]),
    ]


def _figure(folder: Folder, name: str) -> dict:
    svg, csv = folder.path / f"figures/{name}.svg", folder.path / f"figures/{name}.csv"
    rows = read_csv(csv, SIDECAR)
    named = {record for column in ("record", "reference_record") for cell in rows[column] for record in cell.split()}
    return {
        "rule": f"draw_{name}",
        "svg": folder.name(svg),
        "svg_digest": sha256_of(svg),
        "csv": folder.name(csv),
        "csv_digest": sha256_of(csv),
        "records": sorted(record for record in named if not record.startswith("published:")),
    }


def _record(folder: Folder, record: dict) -> dict:
    log = folder.log(record)
    return {
        "id": record["id"],
        "digest": record["digest"],
        "commit": record["environment"]["commit"],
        "log": folder.name(log),
        "log_digest": sha256_of(log),
    }


def _check_records(folder: Folder, evidence: Evidence, written: dict) -> Iterator[str]:
    for name, record in evidence.records.items():
        entry = written.get(name)
        if entry is None:
            yield f"{name}: not in {NAME}, which was written before it"
            continue
        if entry["digest"] != record["digest"]:
            yield f"{name}: digest {record['digest']} is not the {entry['digest']} of {NAME}"
        yield from _check_file(folder, entry["log"], entry["log_digest"], f"log of {name}")
    for name in sorted(set(written) - set(evidence.records) - evidence.damaged):
        yield f"{name}: in {NAME} but not among the campaign's records"


def _check_gates(folder: Folder, evidence: Evidence) -> Iterator[str]:
    """A timing must have a passed gate behind it."""
    for method, dtype, ranks in sorted(evidence.timed()):
        path = folder.gate(method, dtype, ranks)
        status = evidence.gate_status(path)
        if status != "passed":
            yield f"{folder.name(path)}: {status}, but {method} has timings in {dtype}"


def _check_tables(folder: Folder, evidence: Evidence, written: dict) -> Iterator[str]:
    for name, digest in written.items():
        yield from _check_file(folder, name, digest, name)
    for name in SCHEMAS:
        yield from evidence.compare_table(name)


def _check_figures(folder: Folder, evidence: Evidence, written: dict) -> Iterator[str]:
    for name in FIGURES:
        entry = written.get(name)
        if entry is None:
            yield f"figure {name}: not in {NAME}"
            continue
        yield from _check_file(folder, entry["svg"], entry["svg_digest"], entry["svg"])
        yield from _check_file(folder, entry["csv"], entry["csv_digest"], entry["csv"])
        yield from _check_pair(folder.path / entry["svg"], folder.path / entry["csv"], entry["svg"])
        yield from check_sidecar(folder.path / entry["csv"], entry["csv"], evidence)


def _check_pair(svg: Path, csv: Path, name: str) -> Iterator[str]:
    """A figure carries the digest of the sidecar that it was drawn with."""
    if svg.is_file() and csv.is_file() and sha256_of(csv) not in svg.read_text(errors="replace"):
        yield f"{name}: was not drawn from the sidecar beside it"


def _check_file(folder: Folder, name: str, digest: str, what: str) -> Iterator[str]:
    path = folder.path / name
    if not path.is_file():
        yield f"{what}: {name} is missing"
    elif sha256_of(path) != digest:
        yield f"{what}: {name} has changed since {NAME} was written"
