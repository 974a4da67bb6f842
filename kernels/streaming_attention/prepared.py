"""What a method hands back when it is ready to run: the shape of every method's ``prepare``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

COMPUTE, COMMUNICATION = "compute", "communication"
"""Names of stages: what a rank does alone, and what it does with others."""


@dataclass(frozen=True)
class Prepared:
    """A call with its output and workspace allocated.

    Parameters
    ----------
    stages : list of (str, callable)
        ``COMPUTE`` or ``COMMUNICATION`` with a function of no arguments; calling all in order computes once. They
        read the inputs anew each time and can be called any number of times.
    output : ndarray, (batch, heads, queries, head_dim)
        Complete on rank 0 only.
    lse : ndarray, (batch, heads, queries), or None
        Log-sum-exp of every row's logits, where the method has it; complete on rank 0 only.
    kernel : str
        Name of the code that will run.
    close : callable
        Gives back what the call holds beyond memory, such as a library's number of threads.
    """

    stages: list[tuple[str, Callable[[], None]]]
    output: np.ndarray
    kernel: str
    lse: np.ndarray | None = None
    close: Callable[[], None] = lambda: None

    def run(self) -> np.ndarray:
        """Compute once; returns the output."""
        for _, stage in self.stages:
            stage()
        return self.output
