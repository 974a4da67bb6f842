"""How layouts meet a machine: words for amounts resolved, ranks spread over sockets, and what doesn't fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streaming_attention.machine.layout import Layout
from streaming_attention.machine.topology import Machine

Amount = int | str
"""A number, ``powers`` (1, 2, 4, ... up to all there are, and all) or ``all``."""


def amounts(amount: Amount, most: int) -> list[int]:
    """The numbers that an amount stands for where ``most`` are there.

    >>> amounts("powers", 26), amounts("all", 26), amounts(52, 26)
    ([1, 2, 4, 8, 16, 26], [26], [52])
    """
    if amount == "powers":
        return [2**exponent for exponent in range((most - 1).bit_length())] + [most]
    return [most if amount == "all" else amount]


def layouts(fields: Mapping[str, Amount], machine: Machine) -> Iterator[Layout]:
    """The layouts that one combination of a sweep's layout keys stands for; several where it has words.

    Parameters
    ----------
    fields : mapping
        ``threads`` and ``binding``, and either ``ranks`` or any of ``nodes, sockets, ranks_per_socket``. ``powers`` and
        ``all`` of threads go up to the cores that a rank has to itself in that layout.
    """
    for nodes, sockets, ranks_per_socket in _shapes(fields, machine):
        shape = Layout(nodes, sockets, ranks_per_socket, 1, fields["binding"])
        for threads in amounts(fields["threads"], max(1, _cores_of_rank(shape, machine))):
            yield Layout(nodes, sockets, ranks_per_socket, threads, fields["binding"])


def spread(ranks: int, machine: Machine) -> tuple[int, int, int]:
    """(nodes, sockets, ranks per socket) that use most sockets of the machine, on the fewest nodes.

    Every split into equal shares is a candidate; one rank a socket is reached first, since each socket adds bandwidth.
    """
    shapes = [
        (nodes, sockets, ranks // (nodes * sockets))
        for nodes in range(1, machine.nodes + 1)
        for sockets in range(1, machine.sockets_per_node + 1)
        if ranks % (nodes * sockets) == 0
    ]
    return max(shapes, key=lambda shape: (shape[0] * shape[1], -shape[0]))


def misfit(layout: Layout, machine: Machine) -> str | None:
    """None, or why the machine has no room for a layout."""
    if layout.nodes > machine.nodes:
        return f"the layout has {layout.nodes} nodes, the machine {machine.nodes}"
    if layout.sockets > machine.sockets_per_node:
        return f"the layout has {layout.sockets} sockets a node, the machine {machine.sockets_per_node}"
    if layout.threads > _cores_of_rank(layout, machine) * machine.threads_per_core:
        if layout.binding == "cores":
            ranks, place, cores = layout.ranks_per_socket, "socket", machine.cores_per_socket
        else:
            ranks, place, cores = layout.ranks_per_node, "node", machine.cores_per_node
        smt = f" x {machine.threads_per_core} hardware threads" if machine.threads_per_core > 1 else ""
        return f"{ranks} ranks x {layout.threads} threads don't fit a {place} of {cores} cores{smt}, shared out evenly"
    return None


def _shapes(fields: Mapping[str, Amount], machine: Machine) -> list[tuple[int, int, int]]:
    if "ranks" in fields:
        return [spread(ranks, machine) for ranks in amounts(fields["ranks"], machine.cores)]
    spans_sockets = any(name in fields for name in ("nodes", "ranks_per_socket"))
    return [
        (nodes, sockets, ranks_per_socket)
        for nodes in amounts(fields.get("nodes", 1), machine.nodes)
        for sockets in amounts(fields.get("sockets", "all" if spans_sockets else 1), machine.sockets_per_node)
        for ranks_per_socket in amounts(fields.get("ranks_per_socket", 1), machine.cores_per_socket)
    ]


def _cores_of_rank(layout: Layout, machine: Machine) -> int:
    """Whole cores that a rank has to itself: of its socket, or without binding of its node."""
    if layout.binding == "cores":
        return machine.cores_per_socket // layout.ranks_per_socket
    return machine.cores_per_node // layout.ranks_per_node
