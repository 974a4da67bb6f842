"""Every rank collects all of K and V, then computes the queries that it holds.

The fewest messages and no merging, for the memory of the whole K/V on every rank. Each head is gathered by itself, so
that it arrives where a kernel wants it and nothing is packed. With overlap a rank begins with the keys that it holds,
while those before and after them arrive.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.results import Results
from streaming_attention.distributed.transfer import Transfer, before, during, wire
from streaming_attention.prepared import Prepared


def prepare(problem: Problem, threads: int, comm, options: Mapping, strategy: str, overlap: bool) -> Prepared:
    """Attention with K and V gathered; queries and keys are shared out by sequence."""
    inputs, keys = problem.inputs, problem.inputs.workload.keys
    everything = Gathered(problem, comm)
    results = Results(problem, keys, threads, options)
    if overlap:
        (own,) = inputs.holding.keys
        stages = during(everything.transfer(), results.rows.add(inputs.k, inputs.v, [own], "own keys"))
        for some in ((0, own[0]), (own[1], keys)):
            stages += results.rows.add(*everything.block(*some), [some], "others' keys")
    else:
        stages = [before(everything.transfer())]
        stages += results.rows.add(*everything.block(0, keys), [(0, keys)], "all keys")
    return results.prepared(stages, comm, strategy)


class Gathered:
    """K and V of all ranks.

    Parameters
    ----------
    problem : Problem
        With shares of the keys side by side in the order of the ranks.
    comm : mpi4py.MPI.Comm
    """

    def __init__(self, problem: Problem, comm):
        inputs = problem.inputs
        batch, kv_heads, _, head_dim = inputs.k.shape
        shape = batch, kv_heads, inputs.workload.keys, head_dim
        self.comm, self.own = comm, (inputs.k, inputs.v)
        self.whole = np.empty(shape, inputs.k.dtype), np.empty(shape, inputs.v.dtype)
        slices = [holding.keys[0] for holding in problem.holdings]
        self._counts = [(stop - start) * head_dim for start, stop in slices]
        self._places = [start * head_dim for start, _ in slices]

    def block(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """K and V of some keys."""
        k, v = self.whole
        return k[:, :, start:stop], v[:, :, start:stop]

    def transfer(self) -> Transfer:
        """Every head of both from all ranks to all ranks."""

        def post():
            return [
                self.comm.Iallgatherv(wire(own[head]), [wire(whole[head]), (self._counts, self._places)])
                for own, whole in zip(self.own, self.whole, strict=True)
                for head in np.ndindex(own.shape[:2])
            ]

        return Transfer(post, "all keys")
