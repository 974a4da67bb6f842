"""Whether the ranks of a job are where its layout says: how many on each host, on which cores, beside whom.

Every rank describes what it sees from inside, and all judge the whole list alike. A launcher or a scheduler that placed
them otherwise must be found out here: the timing of such a job would look fine and be wrong.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from streaming_attention.machine import topology
from streaming_attention.machine.affinity import allowed_cpus, overlaps, share_of_rank
from streaming_attention.machine.layout import Layout


@dataclass(frozen=True)
class Seat:
    """Where one rank sits.

    Parameters
    ----------
    host : str
    cpus : tuple of int
        Its affinity mask.
    cores : int
        Physical cores that the mask touches.
    sockets : tuple of int
        Sockets that it touches, by their position on the host.
    host_sockets, host_cores_per_socket : int
        What the host has, whether the rank may use it or not.
    """

    host: str
    cpus: tuple[int, ...]
    cores: int
    sockets: tuple[int, ...]
    host_sockets: int
    host_cores_per_socket: int


def seat(root: str = "/") -> Seat:
    """The seat of this process, now."""
    cpus = allowed_cpus()
    everything = topology.socket_cores(root)
    mine = [(number, core) for number, cores in enumerate(everything) for core in cores if set(core) & set(cpus)]
    return Seat(
        host=socket.gethostname(),
        cpus=tuple(cpus),
        cores=len(mine),
        sockets=tuple(sorted({number for number, _ in mine})),
        host_sockets=len(everything),
        host_cores_per_socket=min(map(len, everything)),
    )


def separated(seats: Sequence[Seat]) -> bool:
    """Whether the launcher has already given every rank CPUs of its own."""
    return not overlaps([(one.host, one.cpus) for one in seats])


def cpus_of_rank(seats: Sequence[Seat], rank: int, layout: Layout, root: str = "/") -> list[int]:
    """CPUs that a rank must be bound to: out of those it was given, or its share of those that all were given.

    Raises
    ------
    streaming_attention.machine.affinity.BindingError
        They are too few for the layout.
    """
    mine = topology.socket_cores(root, seats[rank].cpus)
    if len(seats) > 1 and separated(seats):
        return share_of_rank(mine, 1, 1, layout.threads, 0)
    before = [one.host for one in seats[:rank]]
    local_rank = before.count(seats[rank].host)
    return share_of_rank(mine, layout.sockets, layout.ranks_per_socket, layout.threads, local_rank)


def crowding(seats: Sequence[Seat], layout: Layout) -> str | None:
    """None, or how the ranks are spread over hosts otherwise than the layout says."""
    counts = Counter(one.host for one in seats)
    if len(counts) != layout.nodes:
        return f"the ranks are on {len(counts)} hosts, the layout has {layout.nodes} nodes"
    if set(counts.values()) != {layout.ranks_per_node}:
        spread = ", ".join(f"{count} on {host}" for host, count in sorted(counts.items()))
        return f"the layout has {layout.ranks_per_node} ranks on every node, there are {spread}"
    return None


def misbinding(seats: Sequence[Seat], layout: Layout) -> str | None:
    """None, or how the masks differ from what the layout says; only for layouts that bind."""
    if not separated(seats):
        masks = "; ".join(f"rank {rank} {one.host} {list(one.cpus)}" for rank, one in enumerate(seats))
        return f"ranks share cores: {masks}"
    for rank, one in enumerate(seats):
        reason = _misbound(one, layout)
        if reason:
            return f"rank {rank} on {one.host}: {reason}"
    return _unevenly_spread(seats, layout)


def _misbound(one: Seat, layout: Layout) -> str | None:
    if len(one.cpus) != layout.threads:
        return f"its mask {list(one.cpus)} has {len(one.cpus)} CPUs, the layout {layout.threads} threads a rank"
    if len(one.sockets) > 1:
        return f"its mask {list(one.cpus)} spans {len(one.sockets)} sockets"
    if one.cores < layout.threads and one.host_cores_per_socket >= layout.ranks_per_socket * layout.threads:
        return f"its CPUs {list(one.cpus)} are hardware threads of {one.cores} cores, though cores are free"
    return None


def _unevenly_spread(seats: Sequence[Seat], layout: Layout) -> str | None:
    """Ranks on the wrong sockets; not judged on a host that shows fewer sockets than the layout uses."""
    for host in dict.fromkeys(one.host for one in seats):
        here = [one for one in seats if one.host == host]
        counts = Counter(one.sockets[0] for one in here)
        shown = here[0].host_sockets >= layout.sockets
        if shown and sorted(counts.values()) != [layout.ranks_per_socket] * layout.sockets:
            spread = ", ".join(f"{count} on socket {number}" for number, count in sorted(counts.items()))
            belong = f"{layout.ranks_per_socket} ranks belong on each of {layout.sockets} sockets"
            return f"{host}: {belong}, there are {spread}"
    return None
