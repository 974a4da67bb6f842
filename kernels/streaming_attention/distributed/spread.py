"""Attention with K and V spread over MPI ranks.

Every rank holds Q and a contiguous slice of the keys, and computes the softmax states of all queries over that slice
alone (threads inside a rank as ever). The states are then merged pairwise up a binary tree: in round r, every rank that
is a multiple of 2^(r+1) takes in the states of the rank 2^r above it. After ceil(log2 ranks) rounds rank 0 has the
states over all keys, and divides. Which states meet in which order follows from the ranks alone, so a layout gives the
same bits every time.

Computing costs O(queries x keys / ranks x head_dim); each message is one state, queries x (head_dim + 2) numbers per
head, whatever the number of keys: this suits few queries over many keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from streaming_attention.distributed.masks import Mask
from streaming_attention.distributed.pieces import Chunk
from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.results import collector, name_call
from streaming_attention.distributed.rows import Rows
from streaming_attention.inputs import Inputs
from streaming_attention.prepared import COMMUNICATION, COMPUTE, Prepared, Stage
from streaming_attention.streaming import attend, schedule, state, vector

_TAG = 1


def prepare(problem: Problem, threads: int, comm, options: Mapping, strategy: str, overlap: bool) -> Prepared:
    """Streaming attention over the ranks of a communicator, each with its slice of the keys.

    Parameters
    ----------
    problem : Problem
        With all queries on every rank, and a contiguous slice of the keys, which may be empty.
    comm : mpi4py.MPI.Comm
    options : mapping
        ``isa`` and ``block``, as in :func:`streaming_attention.streaming.vector.prepare`.
    overlap : bool
        Without effect: what travels is what was computed.

    Returns
    -------
    Prepared
        Complete on rank 0; the output of the others is overwritten with what they sent.
    """
    one = len(problem.mask.sequences) == 1
    choose = vector.choose_kernel if one else _by_sequence(problem.mask)
    return _merged(vector.PartialAttention(problem.inputs, threads, options, choose), comm)


def prepare_loops(inputs: Inputs, threads: int, comm, options: Mapping) -> Prepared:
    """The same with plain loops on every rank; ``options`` may give ``block``."""
    return _merged(attend.PartialAttention(inputs, threads, options.get("block", schedule.BLOCK)), comm)


def _by_sequence(mask: Mask) -> Callable:
    """Every sequence with those of its keys that are here, as :func:`vector.choose_kernel` does it with one."""

    def choose(inputs: Inputs, threads: int, options: Mapping, out: np.ndarray, lse: np.ndarray):
        chunk = Chunk(inputs.workload.kv_heads, max(1, inputs.workload.queries))
        rows = Rows(mask, inputs.q, out, lse, inputs.holding.queries, chunk, inputs.scale, threads, options)
        stages = rows.add(inputs.k, inputs.v, inputs.holding.keys, "own keys") + rows.close()
        return lambda: [stage.run() for stage in stages], rows.kernel

    return choose


def _merged(part, comm) -> Prepared:
    tree = MergeTree(part, comm)
    stages = [Stage(COMPUTE, part.compute, "own keys"), *tree.stages()]
    runs = []
    if comm.Get_rank() == 0:
        stages.append(Stage(COMPUTE, part.finish, "divide"))
        runs = [(0, part.output.shape[2])]
    collect = collector(comm, runs, part.output, part.lse)
    return Prepared(stages, part.output, name_call(part.kernel, "spread", comm), part.lse, collect)


class MergeTree:
    """Merges the states of all ranks into rank 0's.

    Parameters
    ----------
    part : streaming_attention.streaming.attend.PartialAttention or its like
        Its state is sent, or merged into.
    comm : mpi4py.MPI.Comm
    """

    def __init__(self, part, comm):
        self.comm = comm
        self.children, self.parent = relatives(comm.Get_rank(), comm.Get_size())
        self.mine, self.views = part.state, (part.peaks, part.totals, part.outs)
        self.received = np.empty_like(self.mine) if self.children else None
        self.received_views = state.split(self.received, *part.peaks.shape) if self.children else ()

    def stages(self) -> list[Stage]:
        """Take in the children's states in order of distance, then hand the result to the parent."""
        stages = []
        for child in self.children:
            stages.append(Stage(COMMUNICATION, lambda child=child: self._receive(child), f"states of rank {child}"))
            stages.append(Stage(COMPUTE, self._merge, "merge"))
        if self.parent is not None:
            stages.append(Stage(COMMUNICATION, self._send, f"states to rank {self.parent}"))
        return stages

    def _receive(self, child: int) -> None:
        self.comm.Recv(self.received, source=child, tag=_TAG)

    def _merge(self) -> None:
        state.merge_into(*self.views, *self.received_views)

    def _send(self) -> None:
        self.comm.Send(self.mine, dest=self.parent, tag=_TAG)


def relatives(rank: int, ranks: int) -> tuple[list[int], int | None]:
    """A rank's children, nearest first, and its parent (None for rank 0) in the binomial tree.

    >>> relatives(0, 6), relatives(4, 6), relatives(5, 6)
    (([1, 2, 4], None), ([5], 0), ([], 4))
    """
    children, distance = [], 1
    while distance < ranks:
        if rank % (2 * distance):
            return children, rank - distance
        if rank + distance < ranks:
            children.append(rank + distance)
        distance *= 2
    return children, None
