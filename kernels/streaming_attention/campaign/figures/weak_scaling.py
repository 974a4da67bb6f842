"""Weak scaling: a problem that grows with the ranks, the keys of a rank staying the same."""

from __future__ import annotations

from collections.abc import Iterator

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.data import Drawn, Options
from streaming_attention.campaign.figures.over_ranks import Titled, draw_over_ranks, groups_over_ranks, named
from streaming_attention.campaign.words import say_length

TITLE = FIGURES["weak_scaling"]
EXPLANATION = """Time of one call over the number of ranks, keys of a rank fixed: T grows with the ranks. The dashed
guide grows with the FLOPs of a rank: it is flat for a fixed number of queries and rises with the ranks in prefill,
where queries grow, too. Open markers are what the scaling model expects. Bars are bootstrap intervals of the median."""
SHARES = 2
"""At most so many sizes of a rank's share a workload: those with most ranks."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Run time over ranks at fixed keys of a rank: a panel per workload, share and threads, a line per label."""
    missing = "no method of this campaign passed on several numbers of ranks with the same keys on each"
    return draw_over_ranks(TITLE, EXPLANATION, tables, _fixed_shares(tables), missing)


def _fixed_shares(tables: Tables) -> Iterator[Titled]:
    for panel, threads, rows in groups_over_ranks(tables):
        even = rows[rows["keys"] % rows["ranks"] == 0]
        share = (even["keys"] // even["ranks"]).rename("share")
        ranks = even.groupby(share)["ranks"].nunique()
        chosen = sorted(ranks.index[ranks > 1], key=lambda size: (-ranks[size], -size))[:SHARES]
        for size in sorted(chosen):
            yield named(panel, threads, f"T = {say_length(size)} × ranks"), even[share == size]
