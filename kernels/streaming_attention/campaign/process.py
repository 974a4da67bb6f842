"""What a worker settles about its process before any library is imported, and its jobs need to know."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from streaming_attention.machine.layout import Layout
from streaming_attention.machine.seats import Crews


@dataclass(frozen=True)
class Process:
    """One rank's process.

    Parameters
    ----------
    layout : Layout
    variables : dict
        What :func:`streaming_attention.machine.variables.settle_variables` returned.
    crews : Crews
        Made before NumPy was imported, so that it knows every library's threads.
    """

    layout: Layout
    variables: dict
    crews: Crews = field(default_factory=Crews)

    def seated(self) -> AbstractContextManager:
        """Every thread on a CPU of its own while something is timed, where the layout binds."""
        return nullcontext() if self.layout.binding == "none" else self.crews.seated()
