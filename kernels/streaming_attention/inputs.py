"""Seeded inputs that every method and every number of ranks sees alike.

Values are drawn per tensor, batch, head and chunk of tokens, each from a generator of its own. A rank draws the chunks
that meet the tokens it holds, so that all ranks together hold the same global tensors whoever holds what, and nothing
has to be sent. What a rank draws it touches first, so the memory is its own NUMA node's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streaming_attention.dtypes import numpy_dtype
from streaming_attention.slices import Holding
from streaming_attention.workload import Workload

CHUNK = 4096
"""Tokens drawn by one generator."""


@dataclass(frozen=True)
class Inputs:
    """What one rank holds of a workload.

    Parameters
    ----------
    workload : Workload
    q : ndarray, (batch, heads, queries held, head_dim)
    k, v : ndarray, (batch, kv_heads, keys held, head_dim)
        Empty where there are more ranks than keys.
    holding : Holding, optional
        The tokens held, side by side along the third axis; all of them unless given.
    scale : float, optional
        Factor on the logits; the workload's own unless given.
    """

    workload: Workload
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    holding: Holding | None = None
    scale: float | None = None

    def __post_init__(self):
        if self.holding is None:
            object.__setattr__(self, "holding", Holding.whole(self.workload))
        if self.scale is None:
            object.__setattr__(self, "scale", self.workload.scale)

    @property
    def key_start(self) -> int:
        """The first key held, of a single run."""
        return self.holding.keys[0][0]


def make_inputs(workload: Workload, seed: int, holding: Holding | None = None) -> Inputs:
    """Allocate and draw standard normal Q, K and V, as far as they are held.

    Numbers are drawn in fp32 and rounded to the workload's dtype.

    Parameters
    ----------
    seed : int
        Non-negative; each seed gives its own tensors.
    holding : Holding, optional
        All tokens unless given.
    """
    holding = holding or Holding.whole(workload)
    dtype = numpy_dtype(workload.dtype)
    q = np.empty((workload.batch, workload.heads, holding.query_count, workload.head_dim), dtype)
    k = np.empty((workload.batch, workload.kv_heads, holding.key_count, workload.head_dim), dtype)
    inputs = Inputs(workload, q, k, np.empty_like(k), holding)
    refill(inputs, seed)
    return inputs


def refill(inputs: Inputs, seed: int) -> None:
    """Draw again in place, as :func:`make_inputs` does with this seed."""
    held = inputs.holding
    for tensor, (array, runs) in enumerate([(inputs.q, held.queries), (inputs.k, held.keys), (inputs.v, held.keys)]):
        for batch, head in np.ndindex(array.shape[:2]):
            at = 0
            for start, stop in runs:
                _fill(array[batch, head, at : at + stop - start], start, (seed, tensor, batch, head))
                at += stop - start


def _fill(tokens: np.ndarray, first: int, key: tuple[int, ...]) -> None:
    """Draw the tokens first, first + 1, ... of one head of one tensor, (tokens, head_dim)."""
    last = first + len(tokens)
    for chunk in range(first // CHUNK, -(-last // CHUNK)):
        start, stop = max(first, chunk * CHUNK), min(last, (chunk + 1) * CHUNK)
        drawn = np.random.default_rng((*key, chunk)).standard_normal(
            (stop - chunk * CHUNK, tokens.shape[1]), dtype=np.float32
        )
        tokens[start - first : stop - first] = drawn[start - chunk * CHUNK :]
