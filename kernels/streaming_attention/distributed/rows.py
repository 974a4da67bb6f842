"""What a rank computes by itself: its rows of O, to which blocks of keys are added one after the other.

The first block that a row sees is written in place, every further one beside it and then merged
(:mod:`streaming_attention.streaming.state`). Which blocks a row sees, and in which order, follows from ranks and shapes
alone, and so do the bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from streaming_attention.distributed.masks import Mask
from streaming_attention.distributed.pieces import Chunk, Piece, join
from streaming_attention.parallel import share_out
from streaming_attention.prepared import COMPUTE, Stage
from streaming_attention.slices import Slice
from streaming_attention.streaming import state
from streaming_attention.streaming.attend import THREADED_ROWS
from streaming_attention.streaming.vector import kernel_call, sequences_call


class Rows:
    """The rows of Q that a rank computes, and what they have become so far.

    Parameters
    ----------
    mask : Mask
    q, out : ndarray, (batch, heads, rows, head_dim)
        ``out`` C-contiguous and float32, unless only one block is added.
    lse : ndarray, float32, (batch, heads, rows), C-contiguous
    runs : sequence of (int, int)
        The queries that the rows are.
    chunk : Chunk
        What is computed at a time, :func:`.pieces.chunk_of`.
    scale : float
    threads : int
    options : mapping
        ``isa`` and ``block`` of the kernels.
    """

    def __init__(self, mask: Mask, q, out, lse, runs, chunk: Chunk, scale: float, threads: int, options: Mapping):
        self.mask = mask.within(runs)
        self.q, self.out, self.lse, self.runs = q, out, lse, runs
        self.scale, self.threads, self.options = scale, threads, options
        self.chunk = chunk
        self.kernel: str | None = None
        self._opened: set[Slice] = set()

    def add(self, k: np.ndarray, v: np.ndarray, runs: Sequence[Slice], label: str) -> list[Stage]:
        """Stages that attend to a block of keys, in chunks short enough to look at the network between them.

        Parameters
        ----------
        k, v : ndarray, (batch, kv_heads, keys, head_dim)
            Read anew by every call; they must stay where they are.
        runs : sequence of (int, int)
            The keys that they are.
        """
        pieces = join(self._marked(self.mask.pieces(self.runs, runs)), self.mask.causal, self.chunk.rows)
        return [Stage(COMPUTE, run, label) for piece, again in pieces for run in self._piece(piece, again, k, v)]

    def close(self) -> list[Stage]:
        """What gives 0 and -inf to the rows that no block was added to."""
        left = [slice(*rows) for rows in self.mask.rows(self.runs) if rows not in self._opened]
        return [Stage(COMPUTE, functools.partial(self._clear, left), "clear")] if left else []

    def _clear(self, left: Sequence[slice]) -> None:
        for rows in left:
            self.out[:, :, rows], self.lse[:, :, rows] = 0, -np.inf

    def _marked(self, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, bool]]:
        """Every piece, and whether something was added to its rows before."""
        for piece in pieces:
            yield piece, piece.rows in self._opened
            self._opened.add(piece.rows)

    def _piece(self, piece: Piece, again: bool, k: np.ndarray, v: np.ndarray) -> list[Callable[[], None]]:
        """Calls for some heads after the others, so that a head's keys stay in the caches."""
        kv_heads, parts = k.shape[1], piece.cut(self.chunk.rows)
        heads = [slice(start, start + self.chunk.kv_heads) for start in range(0, kv_heads, self.chunk.kv_heads)]
        return [self._chunk(part, some, again, k, v) for some in heads for part in parts]

    def _chunk(self, piece: Piece, heads: slice, again: bool, k: np.ndarray, v: np.ndarray) -> Callable[[], None]:
        """A call of the kernel; what comes out stays where it is, or is merged into what there was."""
        rows, keys, group = slice(*piece.rows), slice(*piece.keys), self.q.shape[1] // k.shape[1]
        mine = slice(group * heads.start, group * min(heads.stop, k.shape[1]))
        goal, goal_lse = self.out[:, mine], self.lse[:, mine]
        out = _room(self._spare_out, goal[:, :, rows].shape) if again else goal[:, :, rows]
        lse = _room(self._spare_lse, goal_lse[:, :, rows].shape)
        tensors = self.q[:, mine, rows], k[:, heads, keys], v[:, heads, keys], out, lse
        call, self.kernel = self._kernel(piece, tensors)

        def extend():
            call()
            merge_rows(goal_lse, goal, rows.start, lse, out, self.threads)

        def begin():
            call()
            np.copyto(goal_lse[:, :, rows], lse)

        return extend if again else begin

    def _kernel(self, piece: Piece, tensors) -> tuple[Callable[[], None], str]:
        causal, how = piece.offset is not None, (self.scale, self.threads, self.options)
        if piece.starts:
            return sequences_call(*tensors, piece.starts, causal, *how)
        return kernel_call(*tensors, causal, piece.offset or 0, *how)

    @functools.cached_property
    def _spare_out(self) -> np.ndarray:
        """Where the result of a chunk waits to be merged."""
        return np.empty(self._spare_lse.size * self.q.shape[3], np.float32)

    @functools.cached_property
    def _spare_lse(self) -> np.ndarray:
        """Where a kernel puts the log-sum-exp of a chunk, which it wants in one piece."""
        return np.empty(self.q.shape[0] * self.q.shape[1] * self.chunk.rows, np.float32)


def _room(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return flat[: math.prod(shape)].reshape(shape)


def merge_rows(lse, out, first: int, other_lse, other_out, threads: int = 1) -> None:
    """Merge finished rows over other keys, (batch, heads, some[, head_dim]), into the rows from `first` on, in place.

    Arrays are float32, and those of each batch C-contiguous.
    """
    for mine, mine_lse, other, its_lse in zip(out, lse, other_out, other_lse, strict=True):
        workers = threads if its_lse.size >= THREADED_ROWS else 1
        share_out(state.merge_finished, state.merge_finished_threaded, workers, mine_lse, mine, first, its_lse, other)
