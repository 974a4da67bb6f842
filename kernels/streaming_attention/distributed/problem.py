"""Attention over ranks as one of them sees it: what every strategy is given."""

from __future__ import annotations

from dataclasses import dataclass

from streaming_attention.distributed.holdings import holding_of
from streaming_attention.distributed.masks import Mask
from streaming_attention.inputs import Inputs
from streaming_attention.slices import Holding


@dataclass(frozen=True)
class Problem:
    """A rank's own arrays, and who holds what.

    Parameters
    ----------
    inputs : Inputs
        This rank's; their workload is the whole problem. Arrays that travel are C-contiguous.
    holdings : tuple of Holding
        By rank.
    mask : Mask
    """

    inputs: Inputs
    holdings: tuple[Holding, ...]
    mask: Mask

    @classmethod
    def over(cls, inputs: Inputs, strategy: str, ranks: int) -> Problem:
        """One sequence, shared out as evenly as a strategy can."""
        workload = inputs.workload
        holdings = tuple(holding_of(strategy, workload, rank, ranks) for rank in range(ranks))
        return cls(inputs, holdings, Mask.of(workload))
