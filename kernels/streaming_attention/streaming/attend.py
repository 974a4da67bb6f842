"""Streaming attention of one process: shapes cut into work, and the loops run over them.

What one process does alone and what a rank does among many is the same, up to the division at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streaming_attention.inputs import Inputs
from streaming_attention.parallel import check_threads, share_out
from streaming_attention.prepared import COMPUTE, Prepared
from streaming_attention.streaming import loops, schedule, state

THREADED_ROWS = 4096
"""Rows from which dividing them is worth waking threads."""


def prepare(inputs: Inputs, threads: int, comm: None, options: Mapping) -> Prepared:
    """Streaming attention on one rank; ``options`` may give ``block``, the keys of a step of the online softmax."""
    part = PartialAttention(inputs, threads, options.get("block", schedule.BLOCK))

    def compute():
        part.compute()
        part.finish()

    return Prepared([(COMPUTE, compute)], part.output, part.kernel, lse=part.lse)


class PartialAttention:
    """Q against one slice of the keys, prepared once and computed any number of times.

    Parameters
    ----------
    inputs : Inputs
        C-contiguous float32 arrays, read anew by every :meth:`compute`.
    threads : int
    block : int

    Attributes
    ----------
    state : ndarray
        All states after :meth:`compute` in one flat array, as they travel between ranks.
    peaks, totals : ndarray, (heads, rows)
    outs : ndarray, (heads, rows, head_dim)
        Views of it: K/V heads of all batches, and for each the rows of every query head that shares it.
    output : ndarray, (batch, heads, queries, head_dim)
        The view of ``outs`` that :meth:`finish` completes.
    lse : ndarray, (batch, heads, queries)
    """

    kernel = "streaming.loops"

    def __init__(self, inputs: Inputs, threads: int, block: int):
        check_threads(threads)
        workload, held = inputs.workload, inputs.k.shape[2]
        heads, rows = workload.batch * workload.kv_heads, workload.heads // workload.kv_heads * workload.queries
        self.threads, self.block, self.scale = threads, block, np.float32(inputs.scale)
        self.queries = inputs.q.reshape(heads, rows, workload.head_dim)
        self.keys = inputs.k.reshape(heads, held, workload.head_dim)
        self.values = inputs.v.reshape(heads, held, workload.head_dim)
        self.seen = seen_keys(inputs)
        self.state = np.empty(heads * rows * (workload.head_dim + 2), np.float32)
        self.peaks, self.totals, self.outs = state.split(self.state, heads, rows)
        self._lse = np.empty((heads, rows), np.float32)
        self.output, self.lse = self.outs.reshape(inputs.q.shape), self._lse.reshape(inputs.q.shape[:3])
        self._cut(schedule.splits(heads, rows, held))

    def _cut(self, splits: int) -> None:
        """Lay out the items of work and the states that their results go to."""
        heads, rows, head_dim = self.outs.shape
        self.order = longest_first(self.seen, heads, splits, self.keys.shape[1])
        self._parts = self.peaks[None], self.totals[None], self.outs[None]
        if splits > 1:
            states = np.empty((2, splits, heads, rows), np.float32)
            self._parts = *states, np.empty((splits, heads, rows, head_dim), np.float32)

    def compute(self) -> None:
        """States of every row over the keys held here."""
        share_out(
            loops.attend_items,
            loops.attend_items_threaded,
            self.threads,
            self.order,
            self.queries,
            self.keys,
            self.values,
            self.seen,
            self.scale,
            self.block,
            schedule.SPLIT if len(self._parts[0]) > 1 else self.keys.shape[1],
            *self._parts,
        )
        if len(self._parts[0]) > 1:
            state.merge_parts(*self._parts, self.peaks, self.totals, self.outs)

    def finish(self) -> None:
        """Divide ``outs`` by the totals and take the log-sum-exp."""
        finish_rows(self.peaks, self.totals, self.outs, self._lse, self.threads)


def finish_rows(peaks, totals, outs, lse, threads: int) -> None:
    """Divide ``outs`` (heads, rows, head_dim) by the totals, in place, and write each row's log-sum-exp."""
    threads = threads if peaks.size >= THREADED_ROWS else 1
    rows = outs.reshape(peaks.size, outs.shape[-1])
    arguments = peaks.ravel(), totals.ravel(), rows, lse.ravel()
    share_out(loops.finish_rows, loops.finish_rows_threaded, threads, *arguments)


def seen_keys(inputs: Inputs) -> np.ndarray:
    """How many of the keys held here each row sees, (rows,): always the first ones.

    Causal is bottom-right aligned over all keys: query i sees the global keys up to i + keys - queries.
    """
    workload, held = inputs.workload, inputs.holding.key_count
    group = workload.heads // workload.kv_heads
    if not workload.causal:
        return np.full(group * workload.queries, held)
    seen = np.arange(workload.queries) + 1 + workload.keys - workload.queries - inputs.key_start
    return np.tile(np.clip(seen, 0, held), group)


def longest_first(seen: np.ndarray, heads: int, splits: int, keys: int) -> np.ndarray:
    """Items of work in falling order of keys, so that no thread starts a long one when the others are done.

    Dealt out in turn, they also weigh alike on every thread.
    """
    tiles = schedule.tiles(len(seen))
    longest = np.zeros((tiles, schedule.ROWS), np.int64)
    longest.ravel()[: len(seen)] = seen
    starts = np.arange(splits) * schedule.SPLIT
    cost = np.clip(longest.max(axis=1, initial=0)[:, None] - starts, 0, schedule.SPLIT if splits > 1 else keys)
    return np.argsort(-np.tile(cost.ravel(), heads), kind="stable")
