"""Queries travel around a ring of ranks instead of K and V, and their results travel with them.

Every rank keeps its keys. In step s it attends to them with the queries of the rank s before it, and merges what it
finds into what those queries have gathered on their way, which arrives while it computes; in the end everything is sent
home. It moves fewer bytes than the ring where the queries are few beside the keys: a chunk of a prompt against a long
cache. Memory is the rank's share and two buffers each of queries and of results, and one for what is being computed.

Source: A. Yang and others, "Context Parallelism for Scalable Million-Token Inference", 2024, where all results are
sent home at the end; sending them along needs no room for all of them, and hides all hops but the last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streaming_attention.distributed.pieces import chunk_of
from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.results import collector, name_call, rounding
from streaming_attention.distributed.rows import Rows, merge_rows
from streaming_attention.distributed.transfer import Transfer, before, during, wire
from streaming_attention.prepared import COMPUTE, Prepared, Stage

_QUERIES, _RESULTS = 4, 5


def prepare(problem: Problem, threads: int, comm, options: Mapping, strategy: str, overlap: bool) -> Prepared:
    """Attention with queries that travel; queries and keys are shared out by sequence.

    Parameters
    ----------
    overlap : bool
        Whether the next queries and the results so far travel during a step, or before it.
    """
    journey = Journey(problem, comm)
    stages: list[Stage] = []
    kernel = None
    for step in range(journey.ranks):
        computing, name = _attend(journey, step, problem, threads, options)
        kernel = kernel or name
        moving = journey.transfer(step, ahead=overlap)
        if overlap:
            stages += during(moving, computing)
        else:
            stages += [before(moving)] * (step > 0) + computing
        stages += journey.merging(step, threads)
    stages += [before(journey.homeward()), *rounding(journey.sums, journey.output)]
    return Prepared(
        stages,
        journey.output,
        name_call(kernel, strategy, comm),
        lse=journey.lse,
        collect=collector(comm, problem.inputs.holding.queries, journey.output, journey.lse),
    )


def _attend(journey: Journey, step: int, problem: Problem, threads: int, options: Mapping):
    """Stages that attend to the rank's keys with the queries of a step, and the kernel's name."""
    q, (out, lse), runs = journey.queries(step), journey.computed(step), journey.runs(step)
    inputs = problem.inputs
    chunk = chunk_of(q.shape, inputs.k.shape[1], min(inputs.k.shape[2], problem.mask.longest), threads)
    rows = Rows(problem.mask, q, out, lse, runs, chunk, inputs.scale, threads, options)
    return rows.add(inputs.k, inputs.v, inputs.holding.keys, f"queries {step}") + rows.close(), rows.kernel


class Journey:
    """The queries that come by this rank, and their results.

    Parameters
    ----------
    problem : Problem
    comm : mpi4py.MPI.Comm

    Attributes
    ----------
    sums, lse : ndarray
        Of the rank's own queries, once they are home.
    output : ndarray
        The same as ``sums``, or where they are rounded to.
    """

    def __init__(self, problem: Problem, comm):
        inputs = problem.inputs
        self.comm, self.rank, self.ranks = comm, comm.Get_rank(), comm.Get_size()
        self._own = inputs.q
        self._runs = [holding.queries for holding in problem.holdings]
        batch, heads, _, self._head_dim = inputs.q.shape
        self._rows = batch, heads
        most = batch * heads * max(map(_count, self._runs))
        self._queries = [np.empty(most * self._head_dim, inputs.q.dtype) for _ in range(min(2, self.ranks - 1))]
        self._gathered = [np.empty(most * (self._head_dim + 1), np.float32) for _ in range(2)]
        self._computed = np.empty(most * (self._head_dim + 1), np.float32)
        self._home = np.empty(batch * heads * _count(inputs.holding.queries) * (self._head_dim + 1), np.float32)
        self.sums, self.lse = self._views(self._home, self.rank)
        self.output = self.sums if inputs.q.dtype == np.float32 else np.empty(inputs.q.shape, inputs.q.dtype)

    def runs(self, step: int):
        """The queries that are here in a step."""
        return self._runs[self._origin(step)]

    def queries(self, step: int) -> np.ndarray:
        """Q of a step, (batch, heads, rows, head_dim)."""
        if step == 0:
            return self._own
        shape = *self._rows, _count(self.runs(step)), self._head_dim
        return self._queries[(step - 1) % 2][: int(np.prod(shape))].reshape(shape)

    def computed(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Where O and log-sum-exp over the rank's own keys go: the first rank's are the start of what is gathered."""
        return self._views(self._computed if step else self._gathered[0], self._origin(step))

    def merging(self, step: int, threads: int) -> list[Stage]:
        """Merge what was computed in a step into what arrived."""
        if step == 0:
            return []
        (out, lse), (mine, mine_lse) = self._views(self._gathered[step % 2], self._origin(step)), self.computed(step)
        return [Stage(COMPUTE, lambda: merge_rows(lse, out, 0, mine_lse, mine, threads), "merge")]

    def transfer(self, step: int, ahead: bool) -> Transfer:
        """What moves during a step, or before it: queries for the next step or for this one, results for this one."""
        moves = []
        coming = step + 1 if ahead else step
        if 0 < coming < self.ranks:
            moves.append((_QUERIES, self.queries(coming - 1), self.queries(coming)))
        if step > 0:
            moves.append((_RESULTS, self._flat(step - 1), self._flat(step)))
        return self._transfer(moves, f"queries {coming}")

    def homeward(self) -> Transfer:
        """The last hop of the results."""
        return self._transfer([(_RESULTS, self._flat(self.ranks - 1), self._home)], "results home")

    def _transfer(self, moves, label: str) -> Transfer:
        after, prior = (self.rank + 1) % self.ranks, (self.rank - 1) % self.ranks

        def post():
            receiving = [self.comm.Irecv(wire(received), prior, tag) for tag, _, received in moves]
            return receiving + [self.comm.Isend(wire(sent), after, tag) for tag, sent, _ in moves]

        return Transfer(post, label)

    def _origin(self, step: int) -> int:
        return (self.rank - step) % self.ranks

    def _flat(self, step: int) -> np.ndarray:
        """What the queries of a step have gathered, as it travels."""
        batch, heads = self._rows
        return self._gathered[step % 2][: batch * heads * _count(self.runs(step)) * (self._head_dim + 1)]

    def _views(self, flat: np.ndarray, origin: int) -> tuple[np.ndarray, np.ndarray]:
        """O and log-sum-exp in a buffer, of the queries of a rank."""
        shape = *self._rows, _count(self._runs[origin])
        rows = int(np.prod(shape))
        size = rows * self._head_dim
        return flat[:size].reshape(*shape, self._head_dim), flat[size : size + rows].reshape(shape)


def _count(runs) -> int:
    return sum(stop - start for start, stop in runs)
