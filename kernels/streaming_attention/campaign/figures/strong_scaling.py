"""Strong scaling: the same problem on more and more ranks."""

from __future__ import annotations

from collections.abc import Iterator

from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.figures import FIGURES, style
from streaming_attention.campaign.figures.data import Drawn, Options
from streaming_attention.campaign.figures.over_ranks import Titled, draw_over_ranks, groups_over_ranks, named
from streaming_attention.campaign.words import say_length

TITLE = FIGURES["strong_scaling"]
EXPLANATION = """Time of one call over the number of ranks, T fixed. The dashed guide divides the time of the fewest
ranks by their number; open markers are what the scaling model expects from one rank and the layout's ceilings. Bars
are bootstrap intervals of the median."""
LENGTHS = 2
"""At most so many T a workload: the shortest and the longest."""


@style.styled
def draw(tables: Tables, options: Options) -> Drawn:
    """Run time over ranks at fixed T: a panel per workload, T and threads of a rank, a line per label."""
    missing = "no method of this campaign passed on several numbers of ranks at one T"
    return draw_over_ranks(TITLE, EXPLANATION, tables, _fixed_lengths(tables), missing)


def _fixed_lengths(tables: Tables) -> Iterator[Titled]:
    for panel, threads, rows in groups_over_ranks(tables):
        ranks = rows.groupby("keys")["ranks"].nunique()
        lengths = sorted(ranks.index[ranks > 1])
        for keys in lengths[:1] + lengths[1:][-LENGTHS + 1 :]:
            yield named(panel, threads, f"T = {say_length(keys)}"), rows[rows["keys"] == keys]
