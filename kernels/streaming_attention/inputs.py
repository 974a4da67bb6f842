"""Seeded inputs that every method and every number of ranks sees alike.

Values are drawn per tensor, batch, head and chunk of tokens, each from a generator of its own. A rank draws the chunks
that meet its slice of the keys, so slices of any number of ranks tile the same global tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streaming_attention.slices import key_slice
from streaming_attention.workload import Workload

CHUNK = 4096
"""Tokens drawn by one generator."""

NUMPY_DTYPES = {"fp32": np.dtype(np.float32)}
"""Array dtype by the workload's name for it."""


@dataclass(frozen=True)
class Inputs:
    """What one rank holds of a workload.

    Parameters
    ----------
    q : ndarray, (batch, heads, queries, head_dim)
        The same on every rank.
    k, v : ndarray, (batch, kv_heads, key_stop - key_start, head_dim)
        This rank's contiguous slice of the keys; empty where there are more ranks than keys.
    key_start, key_stop : int
        The slice's place among the workload's keys.
    scale : float
        Factor on the logits; the workload's own unless given.
    """

    workload: Workload
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    key_start: int
    key_stop: int
    scale: float | None = None

    def __post_init__(self):
        if self.scale is None:
            object.__setattr__(self, "scale", self.workload.scale)


def make_inputs(workload: Workload, seed: int, rank: int = 0, ranks: int = 1) -> Inputs:
    """Allocate and draw standard normal Q, K and V; K and V only this rank's slice.

    Parameters
    ----------
    seed : int
        Non-negative; each seed gives its own tensors.
    """
    start, stop = key_slice(workload.keys, rank, ranks)
    dtype = NUMPY_DTYPES[workload.dtype]
    q = np.empty((workload.batch, workload.heads, workload.queries, workload.head_dim), dtype)
    k = np.empty((workload.batch, workload.kv_heads, stop - start, workload.head_dim), dtype)
    inputs = Inputs(workload, q, k, np.empty_like(k), start, stop)
    refill(inputs, seed)
    return inputs


def refill(inputs: Inputs, seed: int) -> None:
    """Draw again in place, as :func:`make_inputs` does with this seed."""
    for tensor, (array, first) in enumerate(
        [(inputs.q, 0), (inputs.k, inputs.key_start), (inputs.v, inputs.key_start)]
    ):
        for batch, head in np.ndindex(array.shape[:2]):
            _fill(array[batch, head], first, (seed, tensor, batch, head))


def _fill(tokens: np.ndarray, first: int, key: tuple[int, ...]) -> None:
    """Draw the tokens first, first + 1, ... of one head of one tensor, (tokens, head_dim)."""
    last = first + len(tokens)
    for chunk in range(first // CHUNK, -(-last // CHUNK)):
        start, stop = max(first, chunk * CHUNK), min(last, (chunk + 1) * CHUNK)
        drawn = np.random.default_rng((*key, chunk)).standard_normal(
            (stop - chunk * CHUNK, tokens.shape[1]), dtype=np.float32
        )
        tokens[start - first : stop - first] = drawn[start - chunk * CHUNK :]
