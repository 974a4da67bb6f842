"""The resources a point runs on: nodes x sockets x ranks per socket x threads, and how they are bound."""

from __future__ import annotations

from dataclasses import asdict, dataclass

BINDINGS = ("cores", "none")


@dataclass(frozen=True)
class Layout:
    """Where a point runs.

    Parameters
    ----------
    nodes : int
        Nodes in use.
    sockets : int
        Sockets in use on each of them.
    ranks_per_socket : int
        MPI ranks on each of those sockets; 1 node x 1 socket x 1 rank runs without MPI.
    threads : int
        Threads of each rank.
    binding : {"cores", "none"}
        ``cores``: every rank owns as many cores of its socket as it has threads and overlaps no other rank.
        ``none``: whatever the operating system gives.
    """

    nodes: int = 1
    sockets: int = 1
    ranks_per_socket: int = 1
    threads: int = 1
    binding: str = "cores"

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def ranks_per_node(self) -> int:
        return self.sockets * self.ranks_per_socket

    @property
    def workers(self) -> int:
        """Threads of all ranks together."""
        return self.ranks * self.threads

    @property
    def slug(self) -> str:
        bound = "" if self.binding == "cores" else f"-{self.binding}"
        return f"n{self.nodes}s{self.sockets}r{self.ranks_per_socket}t{self.threads}{bound}"

    def as_dict(self) -> dict:
        return asdict(self)
