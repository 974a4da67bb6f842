"""The figures of a campaign, one module each, every one with a sidecar CSV of exactly the rows that it draws."""

from __future__ import annotations

import importlib
from types import ModuleType

FIGURES = {
    "runtime": "Run time by method",
    "speedup": "Speedup by method",
    "threads_ranks": "Threads against ranks",
    "scaling": "Scaling with sequence length",
    "strong_scaling": "Strong scaling over ranks",
    "weak_scaling": "Weak scaling over ranks",
    "timeline": "Timeline of the ranks",
    "predictions": "Scaling model: predicted against measured",
    "extrapolation": "Scaling model: beyond this machine",
    "block": "Block size",
    "bandwidth": "Memory bandwidth",
    "roofline": "Roofline",
    "memory": "Peak memory",
    "correctness": "Correctness",
}
"""Name -> title; the module of the same name has ``draw(tables, options) -> Drawn``."""


def find_figure(name: str) -> ModuleType:
    """The module that draws a figure.

    Raises
    ------
    ValueError
        There is no figure of that name.
    """
    if name not in FIGURES:
        raise ValueError(f"figure {name!r}: unknown; allowed: {', '.join(FIGURES)}")
    return importlib.import_module(f"{__name__}.{name}")
