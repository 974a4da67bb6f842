"""What the tables share: a table and its page, columns without those that say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

HEADINGS = {
    "keys": "T",
    "kv_heads": "KV heads",
    "head_dim": "d",
    "ranks_per_socket": "ranks/socket",
    "label": "method",
}
DULL = ("batch", "dtype", "nodes", "sockets", "ranks_per_socket", "binding")
"""Columns that a page shows only if they differ between rows."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the report: its rows as data, and the page that shows them."""

    frame: pd.DataFrame
    page: str


def columns_of(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, str]:
    """Columns of a page with their headings, without dull ones that say the same everywhere."""
    return {name: HEADINGS.get(name, name) for name in names if name not in DULL or frame[name].nunique() > 1}
