"""The ways in which ranks exchange arrays, each as one call: what the network probe times.

Every rank calls alike; arrays are contiguous, of one dtype, and reused from call to call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_TAG = 7

Exchange = tuple[Callable[[], None], np.ndarray, np.ndarray]
"""A call, the array that it leaves on this rank, and what must be in there."""


def ping_pong(comm, count: int) -> Exchange:
    """There and back between a rank and the one half the world away, on another node if there are several.

    Of an odd number of ranks the last sits out.
    """
    rank, half = comm.Get_rank(), comm.Get_size() // 2
    sent, received = _filled(rank, count), np.zeros(count)
    if rank >= 2 * half:
        return (lambda: None), sent, sent
    partner = rank + half if rank < half else rank - half

    def run():
        if rank < half:
            comm.Send(sent, dest=partner, tag=_TAG)
        comm.Recv(received, source=partner, tag=_TAG)
        if rank >= half:
            comm.Send(sent, dest=partner, tag=_TAG)

    return run, received, _filled(partner, count)


def shift(comm, count: int) -> Exchange:
    """Every rank sends to the next and receives from the one before, all at once: a step of a ring."""
    rank, size = comm.Get_rank(), comm.Get_size()
    sent, received = _filled(rank, count), np.zeros(count)
    after, before = (rank + 1) % size, (rank - 1) % size
    return (
        lambda: comm.Sendrecv(sent, dest=after, sendtag=_TAG, recvbuf=received, source=before, recvtag=_TAG),
        received,
        _filled(before, count),
    )


def allreduce(comm, count: int) -> Exchange:
    """The sum over all ranks, on every rank."""
    rank, size = comm.Get_rank(), comm.Get_size()
    sent, total = _filled(rank, count), np.zeros(count)
    return (lambda: comm.Allreduce(sent, total)), total, sum(_filled(other, count) for other in range(size))


def allgather(comm, count: int) -> Exchange:
    """Every rank's array, on every rank."""
    rank, size = comm.Get_rank(), comm.Get_size()
    sent, everything = _filled(rank, count), np.zeros(size * count)
    right = np.concatenate([_filled(other, count) for other in range(size)])
    return (lambda: comm.Allgather(sent, everything)), everything, right


def _filled(rank: int, count: int) -> np.ndarray:
    """Small integers that differ between ranks and places: sums are exact in any order."""
    return (np.arange(count) + rank) % 11.0
