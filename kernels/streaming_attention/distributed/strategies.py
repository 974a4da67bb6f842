"""The ways to share one attention problem out over ranks: their names, and what each of them does.

Light to import: the registry, a plan and the model of the costs (:mod:`.choose`) all ask.
"""

from __future__ import annotations

SUMMARIES = {
    "spread": "K/V stay where they are, every rank computes all queries over its keys, states are merged up a tree",
    "allgather": "queries by sequence; every rank collects all of K/V, then computes its queries",
    "ring": "queries by sequence; K/V travel from rank to rank, computed with while the next block arrives",
    "zigzag": "the ring with one early and one late chunk of the tokens on every rank: equal work under a causal mask",
    "heads": "all-to-all from slices of the sequence to heads, whole attention of those heads, all-to-all back",
    "pass_q": "queries travel from rank to rank instead of K/V, and what they have gathered travels with them",
}
"""Strategy -> what travels and who computes what."""

STRATEGIES = tuple(SUMMARIES)
"""Names of the strategies, simple ones first: of two that cost the same the first is taken."""

AUTO = "auto"
"""Whichever strategy :func:`streaming_attention.distributed.choose.choose` finds to be the fastest."""

OVERLAP = ("on", "off")
"""Whether ranks compute while K/V or queries travel, where a strategy can."""

OVERLAPPING = ("allgather", "ring", "zigzag", "pass_q")
"""Strategies that can."""
