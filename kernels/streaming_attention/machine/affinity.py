"""Which cores a rank runs on: binding it, and seeing the mask from inside."""

from __future__ import annotations

import os
from collections.abc import Sequence

from streaming_attention.machine.topology import siblings_last


class BindingError(RuntimeError):
    """The cores a layout asks for are not there, or ranks share a core."""


def allowed_cpus() -> list[int]:
    """Logical CPUs that this process may run on, in order; every CPU where the system can't say."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def share_of_rank(
    sockets: Sequence[Sequence[Sequence[int]]],
    sockets_in_use: int,
    ranks_per_socket: int,
    threads: int,
    local_rank: int,
) -> list[int]:
    """CPUs of one rank of a node: ranks fill a socket before the next and share its whole cores out evenly.

    A rank takes one CPU of each of its cores first and SMT siblings only when it has more threads than cores, so no
    core serves two ranks.

    Parameters
    ----------
    sockets : sequence
        ``sockets[socket][core]`` are the CPUs of one core, see
        :func:`streaming_attention.machine.topology.socket_cores`.
    sockets_in_use, ranks_per_socket, threads : int
        The layout's numbers.
    local_rank : int
        Rank on this node, from 0.

    Raises
    ------
    BindingError
        The node has fewer sockets, or the rank's share fewer CPUs, than the layout needs.
    """
    if sockets_in_use > len(sockets):
        raise BindingError(f"layout asks for {sockets_in_use} sockets on a node, this one has {len(sockets)}")
    socket, position = divmod(local_rank, ranks_per_socket)
    if socket >= sockets_in_use:
        allowed = sockets_in_use * ranks_per_socket
        raise BindingError(f"local rank {local_rank} on a node that holds {allowed} ranks in this layout")
    each = len(sockets[socket]) // ranks_per_socket
    cores = sockets[socket][position * each : (position + 1) * each]
    cpus = siblings_last(cores)
    if threads > len(cpus):
        raise BindingError(
            f"layout asks for {ranks_per_socket} ranks x {threads} threads on a socket of {len(sockets[socket])} "
            f"cores: the share of a rank is {len(cpus)} CPUs"
        )
    return list(cpus[:threads])


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
