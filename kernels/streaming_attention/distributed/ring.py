"""K and V travel around a ring of ranks, and every rank computes with the block it holds while the next arrives.

Queries and keys of a token live on one rank. In step s a rank adds the block of the rank s before it to its rows, and
passes it on; after ranks - 1 steps every block has been everywhere. Memory is the rank's share and two buffers of one
block. Every rank sends (ranks - 1) blocks, 2 * kv_heads * keys / ranks * head_dim numbers each.

With contiguous shares a causal mask gives the last rank nearly twice the average work. The zigzag holding, one early
and one late chunk of the tokens, gives the same to all.

Sources: H. Liu, M. Zaharia and P. Abbeel, "Ring Attention with Blockwise Transformers", 2023; for two chunks a rank,
W. Brandon and others, "Striped Attention", 2023, and the zigzag variant that practice settled on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.results import Results
from streaming_attention.distributed.transfer import Transfer, before, during, wire
from streaming_attention.prepared import Prepared, Stage

_TAG = 2


def prepare(problem: Problem, threads: int, comm, options: Mapping, strategy: str, overlap: bool) -> Prepared:
    """Attention over a ring; ``strategy`` says how the tokens are shared out, ``ring`` or ``zigzag``.

    Parameters
    ----------
    problem : Problem
        With any runs of tokens on any rank.
    comm : mpi4py.MPI.Comm
    overlap : bool
        Whether a block travels while the one before it is computed with, or in between.
    """
    ring = Ring(problem, comm)
    results = Results(problem, max(holding.key_count for holding in ring.holdings), threads, options)
    stages: list[Stage] = []
    for step in range(ring.ranks):
        computing = results.rows.add(*ring.block(step), ring.holdings[ring.origin(step)].keys, f"block {step}")
        if step == ring.ranks - 1:
            stages += computing
        elif overlap:
            stages += during(ring.transfer(step), computing)
        else:
            stages += [*computing, before(ring.transfer(step))]
    return results.prepared(stages, comm, "ring (zigzag)" if strategy == "zigzag" else strategy)


class Ring:
    """The blocks of K and V that come by this rank.

    Parameters
    ----------
    problem : Problem
    comm : mpi4py.MPI.Comm
    """

    def __init__(self, problem: Problem, comm):
        self.comm, self.rank, self.ranks = comm, comm.Get_rank(), comm.Get_size()
        self.own = k, _ = problem.inputs.k, problem.inputs.v
        self.holdings = problem.holdings
        batch, kv_heads, _, head_dim = k.shape
        self._sizes = batch, kv_heads, head_dim
        most = batch * kv_heads * head_dim * max(holding.key_count for holding in self.holdings)
        self._buffers = [np.empty(2 * most, k.dtype) for _ in range(min(2, self.ranks - 1))]

    def origin(self, step: int) -> int:
        """Whose block is here in a step."""
        return (self.rank - step) % self.ranks

    def block(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """K and V of a step, (batch, kv_heads, keys, head_dim) each."""
        if step == 0:
            return self.own
        batch, kv_heads, head_dim = self._sizes
        shape = batch, kv_heads, self.holdings[self.origin(step)].key_count, head_dim
        size = int(np.prod(shape))
        flat = self._buffers[(step - 1) % 2]
        return flat[:size].reshape(shape), flat[size : 2 * size].reshape(shape)

    def transfer(self, step: int) -> Transfer:
        """The block of a step to the next rank, that of the following step from the one before."""
        after, prior = (self.rank + 1) % self.ranks, (self.rank - 1) % self.ranks
        sent, received = (list(map(wire, self.block(one))) for one in (step, step + 1))

        def post():
            receiving = [self.comm.Irecv(array, prior, _TAG + part) for part, array in enumerate(received)]
            return receiving + [self.comm.Isend(array, after, _TAG + part) for part, array in enumerate(sent)]

        return Transfer(post, f"block {step + 1}")
