"""Which cores a rank runs on: binding it, and seeing the mask from inside."""

from __future__ import annotations

import os
from collections.abc import Sequence


class BindingError(RuntimeError):
    """The cores a layout asks for are not there, or ranks share a core."""


def allowed_cpus() -> list[int]:
    """Logical CPUs that this process may run on, in order; every CPU where the system can't say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def share_of_rank(
    sockets: Sequence[Sequence[int]], sockets_in_use: int, ranks_per_socket: int, threads: int, local_rank: int
) -> list[int]:
    """CPUs of one rank of a node: ranks fill a socket before the next, each with ``threads`` CPUs of its own.

    Parameters
    ----------
    sockets : sequence of sequences of int
        CPUs of each socket, one per physical core first and their SMT siblings after them.
    sockets_in_use, ranks_per_socket, threads : int
        The layout's numbers.
    local_rank : int
        Rank on this node, from 0.

    Raises
    ------
    BindingError
        The node has fewer sockets, or the socket fewer CPUs, than the layout needs.
    """
    if sockets_in_use > len(sockets):
        raise BindingError(f"layout asks for {sockets_in_use} sockets on a node, this one has {len(sockets)}")
    socket, position = divmod(local_rank, ranks_per_socket)
    if socket >= sockets_in_use:
        allowed = sockets_in_use * ranks_per_socket
        raise BindingError(f"local rank {local_rank} on a node that holds {allowed} ranks in this layout")
    cpus = list(sockets[socket])
    needed = ranks_per_socket * threads
    if needed > len(cpus):
        raise BindingError(
            f"layout asks for {ranks_per_socket} ranks x {threads} threads on a socket, {len(cpus)} CPUs are allowed"
        )
    return cpus[position * threads : (position + 1) * threads]


def bind(cpus: Sequence[int]) -> None:
    """Keep this process, and the threads it will start, on these CPUs."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(cpus))


def overlaps(masks: Sequence[tuple[str, Sequence[int]]]) -> list[tuple[int, int]]:
    """Pairs of ranks that share a core, given each rank's (host, mask)."""
    pairs = []
    for later in range(len(masks)):
        for earlier in range(later):
            same_host = masks[earlier][0] == masks[later][0]
            if same_host and set(masks[earlier][1]) & set(masks[later][1]):
                pairs.append((earlier, later))
    return pairs
