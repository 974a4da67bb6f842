"""What a call takes as far as nominal numbers tell: for a plan, before anything is measured. Light to import."""

from __future__ import annotations

from collections.abc import Mapping

from streaming_attention import models
from streaming_attention.distributed.choose import NOMINAL, Cost, Rates, costs, resolve
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS, Choice
from streaming_attention.workload import Workload

ONLY = "spread"
"""The strategy of a method that has no choice of them."""

OVER_RANKS = ("strategy", "overlap")
"""Options that matter over ranks and nowhere else."""


def strategy_of(method: str, options: Mapping, workload: Workload, layout: Layout) -> str:
    """The strategy that a method runs over the ranks of a layout, its option or what ``auto`` comes to."""
    known = METHODS[method].options if method in METHODS else {}
    if "strategy" not in known:
        return ONLY
    asked = options.get("strategy", known["strategy"].default)
    return resolve(asked, workload, layout.ranks, layout.threads)


def overlaps(options: Mapping) -> bool:
    """Whether ranks compute while messages travel: unless the option says otherwise."""
    return options.get("overlap", "on") in ("on", True)


def call_cost(workload: Workload, choice: Choice, layout: Layout) -> tuple[str, Cost]:
    """The strategy of a choice over several ranks, and what it costs at nominal rates."""
    strategy = strategy_of(choice.method, choice.options, workload, layout)
    rates = Rates(METHODS[choice.method].rate * layout.threads, models.NOMINAL_GBS * layout.threads)
    return strategy, costs(strategy, workload, layout.ranks, NOMINAL, rates, overlaps(choice.options))


def call_seconds(workload: Workload, choice: Choice, layout: Layout) -> float:
    """Seconds of one call of a choice."""
    if layout.ranks == 1:
        return models.predict_seconds(workload, METHODS[choice.method], layout)
    return call_cost(workload, choice, layout)[1].seconds
