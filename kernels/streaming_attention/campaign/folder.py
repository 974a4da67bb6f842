"""Where a campaign's files are, seen from its folder: plan, records, gates, logs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from streaming_attention.machine.layout import Layout


class Folder:
    """The folder of one campaign.

    Records whose point has left the plan stay on disk, since another config may ask for them again; they are no part
    of the campaign and are passed over.

    Parameters
    ----------
    path : str or path
        ``results/<campaign>``.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def plan(self) -> list[dict[str, str]] | None:
        """Rows of ``plan.csv``; None if there is no plan."""
        path = self.path / "plan.csv"
        if not path.exists():
            return None
        with path.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def records(self) -> list[Path]:
        """Records of attention and of ceilings that are there and belong to the plan, in order of their names."""
        found = [*sorted(self.path.glob("records/*.json")), *sorted(self.path.glob("ceilings/*.json"))]
        plan = self.plan()
        if plan is None:
            return found
        names = {f"records/{row['id']}.json" for row in plan}
        names |= {f"ceilings/{_layout(row).slug}.json" for row in plan}
        return [path for path in found if self.name(path) in names]

    def gate(self, method: str, dtype: str, ranks: int) -> Path:
        """The gate record that a timing of a method depends on."""
        return self.path / "gate" / f"{method}-{dtype}-{'ranks' if ranks > 1 else 'threads'}.json"

    def log(self, record: dict) -> Path:
        """A record's log in this folder, wherever the folder was moved to since."""
        return self.path / log_name(record["log"])

    def name(self, path: Path) -> str:
        """A path as it is written down: relative to the folder, with forward slashes."""
        return path.relative_to(self.path).as_posix()

    def files(self, pattern: str) -> Iterator[Path]:
        """Files that match a pattern below the folder, in order of their names."""
        return iter(sorted(path for path in self.path.glob(pattern) if path.is_file()))


def log_name(path: str) -> str:
    """A log's path below its campaign's folder: from the last folder called ``logs`` on."""
    parts = Path(path).parts
    start = max((index for index, part in enumerate(parts[:-1]) if part == "logs"), default=0)
    return Path(*parts[start:]).as_posix()


def _layout(row: dict[str, str]) -> Layout:
    counts = {key: int(row[key]) for key in ("nodes", "sockets", "ranks_per_socket", "threads")}
    return Layout(**counts, binding=row["binding"])
