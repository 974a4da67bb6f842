"""Where a campaign stands: which point was measured, how many of how many, and about how long the rest will take."""

from __future__ import annotations

import csv
from pathlib import Path


def progress_line(record: dict, plan: Path, records: Path) -> str:
    """One line for the terminal after a point; the time left is the plan's prediction for points without a record."""
    with open(plan, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if float(row["predicted_seconds"] or 0) > 0]
    done = [row for row in rows if (records / f"{row['id']}.json").exists()]
    left = sum(float(row["predicted_seconds"]) for row in rows if row not in done)
    passed = sum(entry["status"] == "passed" for entry in record["methods"])
    return (
        f"[{len(done)}/{len(rows)}] {record['id']}: {passed} of {len(record['methods'])} methods passed, "
        f"{record['seconds']:.0f} s; about {_clock(left)} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
