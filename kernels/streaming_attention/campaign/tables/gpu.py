"""What the Triton kernels compile to for GPUs. Nothing of it was run."""

from __future__ import annotations

import json

from streaming_attention.campaign import html
from streaming_attention.campaign.aggregate import frame_of
from streaming_attention.campaign.folder import Folder
from streaming_attention.campaign.gpu import NAME
from streaming_attention.campaign.tables import TABLES
from streaming_attention.campaign.tables.common import Table

GPU = {
    "kernel": "str",
    "target": "str",
    "status": "str",
    "kind": "str",
    "bytes": "float64",
    "seconds": "float64",
    "sha256": "str",
    "reason": "str",
}
COLUMNS = {name: name for name in GPU if name != "sha256"}
EXPLANATION = """Every Triton kernel compiled ahead of time for GPUs, from the source that runs on CPUs. compiled is all
that it says: nothing here was run on a GPU, so nothing is known of its results or its speed there."""


def tabulate(folder: Folder) -> Table:
    """The table of a campaign, from ``gpu.json``."""
    document = json.loads((folder.path / NAME).read_text())
    frame = frame_of(document["kernels"], GPU)
    counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items())
    words = html.paragraph(f"Triton {document['triton'] or 'is not installed'}: {counts}. {EXPLANATION}")
    shown = html.table(frame, COLUMNS, formats={"seconds": html.number(2), "bytes": html.number(7)}, mark="status")
    return Table(frame, html.page(TABLES["gpu"], words, shown))
