"""The tables of a campaign, one module each: rows as CSV, and a page of HTML that shows them."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

TABLES = {
    "best": "Best method per sequence length",
    "prediction_errors": "Scaling model: its errors",
    "extrapolated": "Scaling model: the published table, assumptions, and beyond this machine",
    "machine": "Machine",
    "status": "Status of all points",
    "jobs": "Jobs behind the records",
    "gpu": "Triton kernels compiled for GPUs",
}
"""Name -> title; the module of the same name has ``tabulate(folder) -> Table``."""


def find_table(name: str) -> ModuleType:
    """The module that makes a table.

    Raises
    ------
    ValueError
        There is no table of that name.
    """
    if name not in TABLES:
        raise ValueError(f"table {name!r}: unknown; allowed: {', '.join(TABLES)}")
    return importlib.import_module(f"{__name__}.{name}")


def write_table(table, csv: str | os.PathLike | None = None, page: str | os.PathLike | None = None) -> None:
    """Write the rows of a :class:`~.common.Table`, its page, or both."""
    from streaming_attention.campaign.aggregate import write_csv
    from streaming_attention.campaign.files import write_atomically

    if csv is not None:
        write_csv(table.frame, csv)
    if page is not None:
        write_atomically(page, table.page)
