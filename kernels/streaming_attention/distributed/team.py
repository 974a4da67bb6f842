"""The ranks that run one point together: what the campaign needs of MPI, and nothing more.

A team of one needs no MPI and imports none. NumPy is not imported here: a worker assembles its team before it settles
the variables that NumPy's BLAS reads once.
"""

from __future__ import annotations

import socket
from array import array
from collections.abc import Sequence


class TeamError(RuntimeError):
    """The ranks that started are not the ranks the layout asks for."""


class Team:
    """All ranks of a point.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm or None
        None for a team of one.

    Attributes
    ----------
    rank, size : int
        This rank and how many there are.
    """

    def __init__(self, comm=None):
        self.comm = comm
        self.rank = comm.Get_rank() if comm else 0
        self.size = comm.Get_size() if comm else 1

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.comm:
            self.comm.Barrier()

    def agree(self, value):
        """Rank 0's value on every rank: decisions that follow from a timing must not differ between ranks."""
        return self.comm.bcast(value, root=0) if self.comm else value

    def gather(self, value) -> list:
        """Every rank's value, on every rank, by rank."""
        return self.comm.allgather(value) if self.comm else [value]

    def maximum(self, values: Sequence[float]) -> list[float]:
        """Largest over the ranks of each number."""
        if not self.comm:
            return list(values)
        from mpi4py import MPI

        mine, largest = array("d", values), array("d", values)
        self.comm.Allreduce(mine, largest, op=MPI.MAX)
        return list(largest)

    def local_rank(self) -> int:
        """Position of this rank among the ranks of its host."""
        hosts = self.gather(socket.gethostname())
        return hosts[: self.rank].count(hosts[self.rank])

    def abort(self) -> None:
        """End every rank at once; a rank that fails alone would leave the others waiting for ever."""
        if self.comm:
            self.comm.Abort(1)

    def mpi_version(self) -> str | None:
        """First line of the MPI library's own description; None without MPI."""
        if not self.comm:
            return None
        from mpi4py import MPI

        return MPI.Get_library_version().splitlines()[0].strip("\x00 ")


def assemble(ranks: int, nodes: int) -> Team:
    """The team a layout asks for.

    A launcher that doesn't fit the MPI library starts N worlds of one rank each, all of which look fine and time the
    wrong thing; so the size of the communicator and the number of hosts are compared with the layout.

    Raises
    ------
    TeamError
        The communicator has another size, or the ranks are on another number of hosts.
    """
    if ranks == 1:
        return Team()
    from mpi4py import MPI

    team = Team(MPI.COMM_WORLD)
    if team.size != ranks:
        raise TeamError(f"the communicator has {team.size} ranks, the layout {ranks}: does the launcher fit the MPI?")
    hosts = len(set(team.gather(socket.gethostname())))
    if hosts != nodes:
        raise TeamError(f"the ranks are on {hosts} hosts, the layout has {nodes} nodes")
    return team
