"""From slices of the sequence to heads and back: every rank computes some heads over all tokens.

Two all-to-alls, one before and one after; in between each rank works as if it were alone, so nothing is merged and a
causal mask costs all ranks the same. Query heads are shared out evenly; K/V heads go to every rank that has a query
head of their group, to several where ranks outnumber them. Ranks beyond the query heads only hold tokens.

Nothing is packed: MPI takes each part from where it lies and puts it where the kernels want it.

Source: S. A. Jacobs and others, "DeepSpeed Ulysses", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from mpi4py import MPI

from streaming_attention.distributed.holdings import Heads
from streaming_attention.distributed.pieces import chunk_of
from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.results import collector, name_call
from streaming_attention.distributed.rows import Rows
from streaming_attention.distributed.transfer import Transfer, before, wire
from streaming_attention.prepared import Prepared
from streaming_attention.slices import Slice

HEADS, TOKENS = 1, 2
"""Axes of (batch, heads, tokens, head_dim)."""


def prepare(problem: Problem, threads: int, comm, options: Mapping, strategy: str, overlap: bool) -> Prepared:
    """Attention by heads; queries and keys are shared out by sequence before and after. Nothing overlaps."""
    inputs, rank, ranks = problem.inputs, comm.Get_rank(), comm.Get_size()
    workload = inputs.workload
    shares = [Heads.of_rank(workload, other, ranks) for other in range(ranks)]
    by_query = [holding.queries[0] for holding in problem.holdings]
    by_key = [holding.keys[0] for holding in problem.holdings]
    mine, batch, head_dim = shares[rank], workload.batch, workload.head_dim
    q, k, v = (
        np.empty((batch, stop - start, tokens, head_dim), own.dtype)
        for own, (start, stop), tokens in (
            (inputs.q, mine.queries, workload.queries),
            (inputs.k, mine.keys, workload.keys),
            (inputs.v, mine.keys, workload.keys),
        )
    )
    found, found_lse = np.empty_like(q), np.empty(q.shape[:3], np.float32)
    output, lse = np.empty_like(inputs.q), np.empty(inputs.q.shape[:3], np.float32)
    query_heads, kv_heads = [share.queries for share in shares], [share.keys for share in shares]
    apart = [
        (inputs.q, HEADS, query_heads, q, TOKENS, by_query),
        (inputs.k, HEADS, kv_heads, k, TOKENS, by_key),
        (inputs.v, HEADS, kv_heads, v, TOKENS, by_key),
    ]
    back = [
        (found, TOKENS, by_query, output, HEADS, query_heads),
        (found_lse, TOKENS, by_query, lse, HEADS, query_heads),
    ]
    attending, kernel = _attend(problem, mine, (q, k, v, found, found_lse), threads, options)
    exchanges = [AllToAll(comm, *move) for move in (*apart, *back)]
    there = Transfer(lambda: [exchange.post() for exchange in exchanges[:3]], "tokens to heads")
    home = Transfer(lambda: [exchange.post() for exchange in exchanges[3:]], "heads to tokens")

    def close():
        for exchange in exchanges:
            exchange.close()

    return Prepared(
        [before(there), *attending, before(home)],
        output,
        name_call(kernel, strategy, comm),
        lse=lse,
        collect=collector(comm, inputs.holding.queries, output, lse),
        close=close,
    )


def _attend(problem: Problem, mine: Heads, tensors, threads: int, options: Mapping):
    """Stages that compute the rank's heads, and the kernel's name."""
    workload, scale, stages, kernel = problem.inputs.workload, problem.inputs.scale, [], None
    q, k, v, found, found_lse = tensors
    for (a, b), (c, d) in mine.calls():
        part = q[:, a:b], found[:, a:b], found_lse[:, a:b]
        chunk = chunk_of(part[0].shape, d - c, problem.mask.longest, threads)
        rows = Rows(problem.mask, *part, [(0, workload.queries)], chunk, scale, threads, options)
        stages += rows.add(k[:, c:d], v[:, c:d], [(0, workload.keys)], "heads") + rows.close()
        kernel = kernel or rows.kernel
    return stages, kernel


class AllToAll:
    """Parts of an array along one axis to the ranks, put together along another axis there.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    source, target : ndarray, C-contiguous
    cut, joined : int
        Axes.
    parts, places : sequence of (int, int)
        For every rank, what goes to it of the source, and where in the target what comes from it belongs.
    """

    def __init__(self, comm, source, cut: int, parts: Sequence[Slice], target, joined: int, places: Sequence[Slice]):
        self.comm, source, target = comm, wire(source), wire(target)
        self._sent = source, *_selections(source, cut, parts)
        self._received = target, *_selections(target, joined, places)

    def post(self) -> MPI.Request:
        """Start it."""
        return self.comm.Ialltoallw(*(_message(*side) for side in (self._sent, self._received)))

    def close(self) -> None:
        """Give the datatypes back."""
        for _, counts, types in (self._sent, self._received):
            for count, kind in zip(counts, types, strict=True):
                if count:
                    kind.Free()


def _message(array, counts, types):
    return [array, (counts, [0] * len(counts)), types]


def _selections(array: np.ndarray, axis: int, parts: Sequence[Slice]) -> tuple[list[int], list[MPI.Datatype]]:
    """How many (0 or 1) and which datatype for each part of an array; MPI has no datatype for nothing."""
    number = MPI.UNSIGNED_SHORT if array.itemsize == 2 else MPI.FLOAT
    counts, types = [], []
    for start, stop in parts:
        shape, at = list(array.shape), [0] * array.ndim
        shape[axis], at[axis] = stop - start, start
        counts.append(int(math.prod(shape) > 0))
        types.append(number.Create_subarray(array.shape, shape, at).Commit() if counts[-1] else number)
    return counts, types
