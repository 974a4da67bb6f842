"""Exact attention on CPUs, in Python packages alone.

The public functions load on first use, so that importing the package costs nothing: the workflow reads
the registry and the models while it parses its Snakefile, long before a kernel is needed.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "attention": "streaming_attention.api",
    "attention_backward": "streaming_attention.backward",
    "attention_over_ranks": "streaming_attention.distributed.attention",
    "attention_paged": "streaming_attention.api",
    "attention_varlen": "streaming_attention.api",
    "merge": "streaming_attention.api",
    "rank_rows": "streaming_attention.distributed.placement",
}
__all__ = [
    "__version__",
    "attention",
    "attention_backward",
    "attention_over_ranks",
    "attention_paged",
    "attention_varlen",
    "merge",
    "rank_rows",
]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
