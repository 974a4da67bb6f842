"""What a rank computes by itself: its rows of O, to which blocks of keys are added one after the other.

The first block that a row sees is written in place, every further one beside it and then merged
(:mod:`streaming_attention.streaming.state`). Which blocks a row sees, and in which order, follows from ranks and shapes
alone, and so do the bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from streaming_attention.distributed.pieces import Piece, plan_pieces
from streaming_attention.parallel import share_out
from streaming_attention.prepared import COMPUTE, Stage
from streaming_attention.slices import Slice
from streaming_attention.streaming import state
from streaming_attention.streaming.attend import THREADED_ROWS
from streaming_attention.streaming.vector import kernel_call
from streaming_attention.workload import Workload


class Rows:
    """The rows of Q that a rank computes, and what they have become so far.

    Parameters
    ----------
    workload : Workload
    q, out : ndarray, (batch, heads, rows, head_dim)
        ``out`` C-contiguous, unless only one block is added.
    lse : ndarray, float32, (batch, heads, rows), C-contiguous
    runs : sequence of (int, int)
        The queries that the rows are.
    chunk : int
        Rows computed at a time, :func:`.pieces.chunk_rows`.
    scale : float
    threads : int
    options : mapping
        ``isa`` and ``block`` of the kernels.
    """

    def __init__(self, workload, q, out, lse, runs, chunk: int, scale: float, threads: int, options: Mapping):
        self.workload: Workload = workload
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
        shift = self.workload.keys - self.workload.queries
        pieces = plan_pieces(self.runs, runs, shift, self.workload.causal)
        return [Stage(COMPUTE, run, label) for piece in pieces for run in self._piece(piece, k, v)]

    def close(self) -> list[Stage]:
        """Stages that give 0 and -inf to the rows that no block was added to."""
        at, stages = 0, []
        for start, stop in self.runs:
            rows = at, at + stop - start
            at = rows[1]
            if stop > start and rows not in self._opened:
                stages.append(Stage(COMPUTE, functools.partial(self._clear, slice(*rows)), "clear"))
        return stages

    def _clear(self, rows: slice) -> None:
        self.out[:, :, rows], self.lse[:, :, rows] = 0, -np.inf

    def _piece(self, piece: Piece, k: np.ndarray, v: np.ndarray) -> list[Callable[[], None]]:
        again = piece.rows in self._opened
        self._opened.add(piece.rows)
        return [self._chunk(part, again, k, v) for part in piece.cut(self.chunk)]

    def _chunk(self, piece: Piece, again: bool, k: np.ndarray, v: np.ndarray) -> Callable[[], None]:
        """A call of the kernel; what comes out stays where it is, or is merged into what there was."""
        rows, keys = slice(*piece.rows), slice(*piece.keys)
        mine, mine_lse = self.out[:, :, rows], self.lse[:, :, rows]
        out = _room(self._spare_out, mine.shape) if again else mine
        lse = _room(self._spare_lse, mine_lse.shape)
        tensors = self.q[:, :, rows], k[:, :, keys], v[:, :, keys], out, lse
        view = piece.offset is not None, piece.offset or 0, self.scale
        call, self.kernel = kernel_call(*tensors, *view, self.threads, self.options)

        def extend():
            call()
            self._merge(piece.rows[0], lse, out)

        def begin():
            call()
            np.copyto(mine_lse, lse)

        return extend if again else begin

    def _merge(self, first: int, lse: np.ndarray, out: np.ndarray) -> None:
        """Merge finished rows into those from `first` on."""
        merge_rows(self.lse, self.out, first, lse, out, self.threads)

    @functools.cached_property
    def _spare_out(self) -> np.ndarray:
        """Where the result of a chunk waits to be merged."""
        batch, heads, _, head_dim = self.q.shape
        return np.empty(batch * heads * self.chunk * head_dim, np.float32)

    @functools.cached_property
    def _spare_lse(self) -> np.ndarray:
        """Where a kernel puts the log-sum-exp of a chunk, which it wants in one piece."""
        batch, heads, _, _ = self.q.shape
        return np.empty(batch * heads * self.chunk, np.float32)


def _room(flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return flat[: math.prod(shape)].reshape(shape)


def merge_rows(lse, out, first: int, other_lse, other_out, threads: int = 1) -> None:
    """Merge finished rows over other keys, (batch, heads, some[, head_dim]), into the rows from `first` on, in place.

    All arrays are float32 and C-contiguous.
    """
    heads, rows, head_dim = math.prod(out.shape[:2]), out.shape[2], out.shape[3]
    some = other_out.shape[2]
    arrays = (
        lse.reshape(heads, rows),
        out.reshape(heads, rows, head_dim),
        first,
        other_lse.reshape(heads, some),
        other_out.reshape(heads, some, head_dim),
    )
    threads = threads if other_lse.size >= THREADED_ROWS else 1
    share_out(state.merge_finished, state.merge_finished_threaded, threads, *arrays)
