"""What a method hands back when it is ready to run: the shape of every method's ``prepare``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COMPUTE, COMMUNICATION = "compute", "communication"
"""Kinds of stages: what a rank does alone, and what it does with others."""


class Stage(NamedTuple):
    """A part of a call.

    Parameters
    ----------
    kind : str
        ``COMPUTE`` or ``COMMUNICATION``.
    run : callable
        A function of no arguments.
    label : str
        What it does, for a timeline.
    """

    kind: str
    run: Callable[[], None]
    label: str = ""


@dataclass(frozen=True)
class Prepared:
    """A call with its output and workspace allocated.

    Parameters
    ----------
    stages : list of Stage
        Or pairs of kind and function; calling all in order computes once. They read the inputs anew each time and can
        be called any number of times.
    output : ndarray, (batch, heads, rows, head_dim)
        The queries that this rank holds after a call: all of them on one rank.
    lse : ndarray, (batch, heads, rows), or None
        Log-sum-exp of every row's logits, where the method has it.
    kernel : str
        Name of the code that will run.
    collect : callable, optional
        ``rows -> (output, lse)`` of these queries on rank 0, None elsewhere, for judging; every rank calls it. One rank
        alone needs none.
    close : callable
        Gives back what the call holds beyond memory, such as a library's number of threads.
    """

    stages: list[Stage]
    output: np.ndarray
    kernel: str
    lse: np.ndarray | None = None
    collect: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray] | None] | None = None
    close: Callable[[], None] = lambda: None

    def run(self) -> np.ndarray:
        """Compute once; returns the output."""
        for _, stage, *_ in self.stages:
            stage()
        return self.output

    def rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Output and log-sum-exp of some queries of the workload, (batch, heads, len(rows)[, head_dim]), on rank 0."""
        if self.collect:
            return self.collect(rows)
        return self.output[:, :, rows], None if self.lse is None else self.lse[:, :, rows]
