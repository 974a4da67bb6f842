"""The machine card: what a campaign ran on, seen from inside a job, and what its layouts could do at best."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pandas as pd

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import frame_of, read_tables
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.record import load_record
from streaming_attention.campaign.tables import TABLES
from streaming_attention.campaign.tables.common import Table

MACHINE = {"topic": "str", "item": "str", "value": "str"}
EXPLANATION = "What the campaign ran on, seen from inside a job, and what each layout could do at best."

Fact = tuple[str, str, str]


def tabulate(folder: Folder) -> Table:
    """The card of a campaign, from its environment record and its aggregated ceilings."""
    environment = load_record(folder.path / "environment.json")
    frame = machine_card(environment, read_tables(folder.path / "tables").ceilings)
    parts = []
    for topic, rows in frame.groupby("topic", sort=False):
        parts += [html.heading(topic), html.table(rows, {"item": "", "value": ""})]
    return Table(frame, html.page(TABLES["machine"], html.paragraph(EXPLANATION), *parts))


def machine_card(environment: dict, ceilings: pd.DataFrame) -> pd.DataFrame:
    """Topic, item and value of everything that the card says.

    Parameters
    ----------
    environment : dict
        An environment record.
    ceilings : DataFrame
        As :mod:`~streaming_attention.campaign.aggregate` makes it.
    """
    job = environment["environment"]
    facts = [
        *_machine(environment["machine"]),
        *_processor(job["ranks"][0]),
        *_software(job),
        *(("variables set for every job", *pair) for pair in sorted(job["variables"]["set"].items())),
        *(("variables removed for every job", *pair) for pair in sorted(job["variables"]["removed"].items())),
        *(_ceiling(row) for row in ceilings.to_dict("records")),
    ]
    return frame_of((dict(zip(MACHINE, fact, strict=True)) for fact in facts), MACHINE)


def _machine(machine: dict) -> Iterator[Fact]:
    for key, value in machine.items():
        if key != "caches":
            yield "machine", key.replace("_gib", " (GiB)").replace("_", " "), _text(value)
    for cache in machine.get("caches", ()):
        size = f"{cache['size_bytes'] / 1024:g} KiB, {cache['line_bytes']}-byte lines"
        shared = f"hardware threads to each: {cache['shared_by']}, on a socket: {cache['instances']}"
        yield "machine", f"cache L{cache['level']} {cache['kind']}", f"{size}, {shared}"


def _processor(rank: dict) -> Iterator[Fact]:
    yield "processor", "model", rank["cpu"]
    yield "processor", "instruction sets", ", ".join(rank["isa"])
    yield "processor", "frequency governor", _text(rank["governor"])
    yield "processor", "CPUs that may be used", ranges(rank["mask"])
    yield "processor", "host", rank["host"]


def _software(job: dict) -> Iterator[Fact]:
    yield "software", "platform", job["platform"]
    yield "software", "python", job["python"]
    for name, version in sorted(job["packages"].items()):
        yield "software", name, version
    yield "software", "MPI", _text(job["mpi"])
    for library in job["blas"]:
        yield "software", "BLAS", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in library.items())
    yield "software", "commit", _text(job["commit"]) + (", with local changes" if job["dirty"] else "")


def _ceiling(row: dict) -> Fact:
    measured = f"{row['median']:.4g} {row['unit']} [{row['low']:.4g}, {row['high']:.4g}]"
    value = measured if row["status"] == "passed" else f"{row['status']}: {row['reason']}"
    return f"ceilings on {row['ranks']} × {row['threads']} (ranks × threads)", row["name"], value


def _text(value) -> str:
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else json.dumps(value)


def ranges(cpus: list[int]) -> str:
    """CPU numbers with runs written as ranges: ``0-3, 8``."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
