"""Arguments of attention, checked: what the callers of all kernels here share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming_attention.triton.arrays import View, view

LOG2E = 1.4426950408889634


class Sizes(NamedTuple):
    """Sizes of an attention problem."""

    batch: int
    heads: int
    queries: int
    head_dim: int
    kv_heads: int
    keys: int

    @property
    def group(self) -> int:
        """Query heads that share a K/V head."""
        return self.heads // self.kv_heads


def views_of(**tensors) -> list[View]:
    """Descriptions of named tensors, as :func:`~.arrays.view` checks them."""
    return [view(name, tensor) for name, tensor in tensors.items()]


def strides_of(views: list[View]) -> list[int]:
    """The strides that kernels take: of all axes but the last, tensor by tensor."""
    return [stride for part in views for stride in part.strides[:3]]


def check_shapes(q: View, k: View, v: View) -> Sizes:
    """Sizes of tensors (batch, heads, tokens, head_dim).

    Raises
    ------
    ValueError
        Naming the tensor that doesn't fit.
    """
    for name, part in (("q", q), ("k", k), ("v", v)):
        if len(part.shape) != 4:
            raise ValueError(f"{name}: {len(part.shape)} axes, needs (batch, heads, tokens, head_dim)")
        if part.dtype != q.dtype:
            raise ValueError(f"{name}: {part.dtype}, q is {q.dtype}")
    batch, heads, queries, head_dim = q.shape
    _, kv_heads, keys, _ = k.shape
    if k.shape != (batch, kv_heads, keys, head_dim) or v.shape != k.shape:
        raise ValueError(f"k, v: shapes {k.shape} and {v.shape} don't fit q's {q.shape}")
    check_heads(heads, kv_heads)
    return Sizes(batch, heads, queries, head_dim, kv_heads, keys)


def check_heads(heads: int, kv_heads: int) -> None:
    """A ValueError unless the query heads are a multiple of the K/V heads."""
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"q: {heads} heads are not a multiple of the {kv_heads} K/V heads")


def check_starts(name: str, values, total: int) -> np.ndarray:
    """Offsets of sequences as int32.

    Raises
    ------
    ValueError
        They don't rise from 0 to ``total``.
    """
    starts = np.ascontiguousarray(values, np.int32)
    if starts.ndim != 1 or starts.size < 2 or starts[0] != 0 or starts[-1] != total or (np.diff(starts) < 0).any():
        raise ValueError(f"{name}: must rise from 0 to {total}")
    return starts


def scale_of(scale: float | None, head_dim: int) -> float:
    """The factor on the logits, head_dim ** -0.5 unless given."""
    return head_dim**-0.5 if scale is None else float(scale)
