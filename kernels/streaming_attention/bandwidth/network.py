"""The network between ranks: how long short messages take, and what long ones sustain, all ranks at once.

Short ones are as long as the softmax states of a few queries, long ones as blocks of K and V. What is found bounds
every strategy over ranks, and is what the scaling model knows of the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streaming_attention.bandwidth.ceiling import Ceiling
from streaming_attention.distributed import exchange

ITEM_BYTES = 8
"""Bytes of one element (float64)."""

SHORT, LONG = 1024, 4 * 2**20
"""Bytes of a message: one query's state of 256 numbers; K and V of 4096 tokens and one head of 128."""

_PATTERNS = {
    "ping_pong": (exchange.ping_pong, lambda ranks: 2),
    "shift": (exchange.shift, lambda ranks: 1),
    "allreduce": (exchange.allreduce, lambda ranks: 1),
    "allgather": (exchange.allgather, lambda ranks: ranks - 1),
}
"""Pattern -> its exchange, and messages that a rank sees pass one after the other in a call."""


@dataclass(frozen=True)
class Probe:
    """One pattern at one size.

    Parameters
    ----------
    pattern : str
    message_bytes : int
        What one rank puts into a call.
    """

    pattern: str
    message_bytes: int

    @property
    def name(self) -> str:
        """``shift_1KiB``, ``shift_4MiB``."""
        size = self.message_bytes
        return f"{self.pattern}_{size >> 20}MiB" if size >= 2**20 else f"{self.pattern}_{size >> 10}KiB"

    @property
    def unit(self) -> str:
        """Short messages are a time, long ones a rate."""
        return "us" if self.message_bytes <= SHORT else "GB/s"

    def messages(self, ranks: int) -> int:
        """Messages of this size that pass one after the other in a call."""
        return _PATTERNS[self.pattern][1](ranks)

    def value(self, seconds: float, ranks: int) -> float:
        """Microseconds of a message, or GB/s of one rank, from the seconds of a call."""
        each = seconds / self.messages(ranks)
        return each * 1e6 if self.unit == "us" else self.message_bytes / each / 1e9


PROBES = tuple(Probe(pattern, size) for pattern in _PATTERNS for size in (SHORT, LONG))


def prepare_probe(probe: Probe, comm) -> Ceiling:
    """Allocate a probe's arrays; its ``error`` is the largest difference from what must have arrived.

    Parameters
    ----------
    probe : Probe
    comm : mpi4py.MPI.Comm
        Of at least two ranks, all of which call the result together.
    """
    run, found, right = _PATTERNS[probe.pattern][0](comm, probe.message_bytes // ITEM_BYTES)
    return Ceiling(run, lambda: float(np.abs(found - right).max()), tolerance=0.0)
