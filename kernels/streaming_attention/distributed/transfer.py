"""Messages on their way while a rank computes.

An MPI library moves a long message when it is called, not behind its caller's back. So a transfer is posted, looked at
between chunks of the computation, and waited for at the end; what looking costs counts as communication.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI

from streaming_attention.prepared import COMMUNICATION, Stage


class Transfer:
    """Some messages that are posted and completed together.

    Parameters
    ----------
    post : callable
        Starts them without waiting and returns their requests.
    label : str
    """

    def __init__(self, post: Callable[[], Sequence[MPI.Request]], label: str):
        self._post, self.label = post, label
        self._requests: list[MPI.Request] = []

    def post(self) -> None:
        self._requests = list(self._post())

    def progress(self) -> None:
        """Let the library move what it can."""
        MPI.Request.Testall(self._requests)

    def wait(self) -> None:
        MPI.Request.Waitall(self._requests)

    def exchange(self) -> None:
        """All of it at once."""
        self.post()
        self.wait()


def wire(array: np.ndarray) -> np.ndarray:
    """The array as it travels: numbers of 16 bits as whole numbers of the same memory, since MPI has none of them."""
    return array.view(np.uint16) if array.itemsize == 2 else array


def during(transfer: Transfer, computing: Sequence[Stage]) -> list[Stage]:
    """Compute while a transfer is on its way."""
    stages = [Stage(COMMUNICATION, transfer.post, f"post {transfer.label}")]
    for stage in computing:
        stages += [stage, Stage(COMMUNICATION, transfer.progress, f"look for {transfer.label}")]
    stages[-1] = Stage(COMMUNICATION, transfer.wait, f"wait for {transfer.label}")
    return stages if computing else [before(transfer)]


def before(transfer: Transfer) -> Stage:
    """A transfer that nothing is computed beside."""
    return Stage(COMMUNICATION, transfer.exchange, transfer.label)
