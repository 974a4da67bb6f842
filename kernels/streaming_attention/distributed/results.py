"""The rows of O that a rank is left with, and how rank 0 gets to see some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from streaming_attention.distributed.pieces import chunk_of
from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.rows import Rows
from streaming_attention.prepared import COMPUTE, Prepared, Stage
from streaming_attention.slices import Slice


class Results:
    """O and log-sum-exp of the queries that a rank holds, computed from its own Q.

    Blocks of keys add up in fp32; an output of 16 bits is rounded once, at the end.

    Parameters
    ----------
    problem : Problem
    most_keys : int
        Of the largest block that its rows will see.
    threads : int
    options : mapping
    """

    def __init__(self, problem: Problem, most_keys: int, threads: int, options: Mapping):
        inputs, self.runs = problem.inputs, problem.inputs.holding.queries
        q, kv_heads = inputs.q, inputs.workload.kv_heads
        self._sums, self.lse = np.empty(q.shape, np.float32), np.empty(q.shape[:3], np.float32)
        self.output = self._sums if q.dtype == np.float32 else np.empty(q.shape, q.dtype)
        chunk = chunk_of(q.shape, kv_heads, min(most_keys, problem.mask.longest), threads)
        self.rows = Rows(problem.mask, q, self._sums, self.lse, self.runs, chunk, inputs.scale, threads, options)

    def prepared(self, stages: list[Stage], comm, strategy: str) -> Prepared:
        """The call, once its stages are laid out."""
        return Prepared(
            [*stages, *self.rows.close(), *rounding(self._sums, self.output)],
            self.output,
            name_call(self.rows.kernel, strategy, comm),
            lse=self.lse,
            collect=collector(comm, self.runs, self.output, self.lse),
        )


def rounding(sums: np.ndarray, output: np.ndarray) -> list[Stage]:
    """What brings results to the output's dtype: nothing where they are the output."""
    return [] if sums is output else [Stage(COMPUTE, lambda: np.copyto(output, sums, casting="unsafe"), "round")]


def name_call(kernel: str | None, strategy: str, comm) -> str:
    """What ran where: ``streaming.prefill avx512, ring (zigzag), 2 ranks``."""
    return f"{kernel or 'nothing to compute'}, {strategy}, {comm.Get_size()} ranks"


def collector(comm, runs: Sequence[Slice], output: np.ndarray, lse: np.ndarray) -> Callable:
    """``collect(rows)`` of :class:`~streaming_attention.prepared.Prepared`, where every query is on one rank.

    Parameters
    ----------
    runs : sequence of (int, int)
        The queries that this rank has results of.
    output, lse : ndarray, (batch, heads, queries held, head_dim), (batch, heads, queries held)
    """
    held = np.concatenate([np.arange(0), *(np.arange(*run) for run in runs)])

    def collect(rows: np.ndarray):
        found = _sum_up(comm, *_own(rows, held, output, lse))
        return found and (found[0].astype(output.dtype, copy=False), found[1])

    return collect


def _own(rows: np.ndarray, held: np.ndarray, output: np.ndarray, lse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What this rank has of some queries, zeros for the others, in fp32."""
    batch, heads, _, head_dim = output.shape
    some = np.zeros((batch, heads, len(rows), head_dim), np.float32)
    some_lse = np.zeros((batch, heads, len(rows)), lse.dtype)
    there = np.isin(rows, held)
    places = np.searchsorted(held, np.asarray(rows)[there])
    some[:, :, there], some_lse[:, :, there] = output[:, :, places], lse[:, :, places]
    return some, some_lse


def _sum_up(comm, *parts: np.ndarray):
    """Sums over the ranks, on rank 0."""
    first = comm.Get_rank() == 0
    totals = [np.empty_like(part) if first else None for part in parts]
    for part, total in zip(parts, totals, strict=True):
        comm.Reduce(part, total, root=0)
    return tuple(totals) if first else None
