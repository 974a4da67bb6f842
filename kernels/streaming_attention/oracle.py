"""Attention by definition in float64, and the rule by which every method is judged against it.

How far a method may be from the oracle is not a constant: it depends on the values, the number of keys and the
precision. The yardstick is the textbook in the method's own precision (:func:`plain`): a method may err twice as much
as that (the rule of FlashAttention's own tests).

Both work row by row on the keys that the row sees and on nothing else, so what it doesn't see can't leak into it.
Time is O(rows x keys x head_dim), memory O(keys x head_dim).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from streaming_attention.dtypes import eps

FACTOR = 2.0
"""How many times the textbook's error a method may have."""

FLOOR_ULPS = 4.0
"""Units in the last place that are allowed on top, since the textbook happens to be exact now and then."""


class Errors(NamedTuple):
    """Distance of an output from a reference; NaN where either is NaN.

    ``relative_l2`` is ||out - reference|| / ||reference|| over all elements (the numerator where the reference is 0),
    ``max_abs`` the largest absolute difference.
    """

    relative_l2: float
    max_abs: float


class Verdict(NamedTuple):
    """Whether an output is right, its error, the textbook's error, and the limits that follow from it."""

    passed: bool
    relative_l2: float
    max_abs: float
    plain_relative_l2: float
    plain_max_abs: float
    limit_relative_l2: float
    limit_max_abs: float


def oracle(q, k, v, *, causal=False, scale=None, rows=None):
    """Attention by definition: softmax(scale * Q K^T) V in float64.

    Parameters
    ----------
    q : ndarray, (batch, heads, queries, head_dim)
    k, v : ndarray, (batch, kv_heads, keys, head_dim)
        ``heads`` is a multiple of ``kv_heads``; query head h uses K/V head h // (heads // kv_heads).
    causal : bool
        Query i sees the keys j <= i + keys - queries.
    scale : float, optional
        Factor on the logits, head_dim ** -0.5 unless given.
    rows : array of int, optional
        Query rows to compute; all of them unless given.

    Returns
    -------
    out : ndarray, (batch, heads, rows, head_dim), float64
    lse : ndarray, (batch, heads, rows), float64
        Natural logarithm of the row's sum of exponentials. A row that sees no key, or whose logits are all -inf, has
        out 0 and lse -inf.
    """
    return _row_by_row(_attend_float64, np.dtype(np.float64), q, k, v, causal, scale, rows)


def plain(q, k, v, *, causal=False, scale=None, rows=None):
    """The textbook in the precision of ``q``, every sum taken in order: the yardstick of :func:`judge`.

    With 16 bits a number, what the textbook writes down (logits, weights, output) has that precision, and arithmetic
    is in fp32. Arguments as of :func:`oracle`; ``out`` has q's dtype, ``lse`` that of the arithmetic.
    """
    kind = np.dtype(np.float32) if q.dtype.itemsize == 2 else q.dtype
    out, lse = _row_by_row(partial(_attend_in_order, q.dtype), kind, q, k, v, causal, scale, rows)
    return out.astype(q.dtype), lse


def errors(out, reference) -> Errors:
    """How far an output is from a reference of the same shape."""
    difference = np.asarray(out, np.float64) - reference
    distance, norm = np.linalg.norm(difference), np.linalg.norm(reference)
    largest = np.abs(difference).max(initial=0.0)
    return Errors(float(distance / norm if norm > 0 else distance), float(largest))


def judge(out, reference, plain_out) -> Verdict:
    """Judge an output: both errors within twice the textbook's and a few units in the last place.

    Parameters
    ----------
    out : ndarray
        What a method computed; its dtype sets the unit in the last place.
    reference, plain_out : ndarray
        What :func:`oracle` and :func:`plain` say of the same rows.

    Returns
    -------
    Verdict
        An output with a NaN or an infinity never passes.
    """
    found, textbook = errors(out, reference), errors(plain_out, reference)
    floor = FLOOR_ULPS * eps(out.dtype)
    limit_relative = FACTOR * textbook.relative_l2 + floor
    limit_absolute = FACTOR * textbook.max_abs + floor * float(np.abs(reference).max(initial=0.0))
    passed = found.relative_l2 <= limit_relative and found.max_abs <= limit_absolute
    return Verdict(passed, *found, *textbook, limit_relative, limit_absolute)


def _row_by_row(attend, dtype, q, k, v, causal, scale, rows):
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    rows = range(queries) if rows is None else rows
    scale = dtype.type(head_dim**-0.5 if scale is None else scale)
    out = np.zeros((batch, heads, len(rows), head_dim), dtype)
    lse = np.full((batch, heads, len(rows)), -np.inf, dtype)
    for b, h in np.ndindex(batch, heads):
        kv_head = h // (heads // kv_heads)
        columns = np.ascontiguousarray(k[b, kv_head].T, dtype)
        values = np.ascontiguousarray(v[b, kv_head], dtype)
        for place, row in enumerate(rows):
            seen = max(0, row + 1 + keys - queries) if causal else keys
            if seen > 0:
                query = q[b, h, row].astype(dtype)
                out[b, h, place], lse[b, h, place] = attend(query, columns[:, :seen], values[:seen], scale)
    return out, lse


def _attend_float64(query, columns, values, scale):
    """One row: (head_dim,) on keys given by column, (head_dim, keys), and values, (keys, head_dim)."""
    logits = scale * (query @ columns)
    peak = logits.max()
    if peak == -np.inf:
        return 0.0, -np.inf
    weights = np.exp(logits - peak)
    total = weights.sum()
    return weights @ values / total, peak + np.log(total)


def _attend_in_order(stored, query, columns, values, scale):
    """The same with every sum in order: along an array's outer axis NumPy adds one row after the other."""
    logits = _as(stored, scale * np.add.reduce(query[:, None] * columns, axis=0))
    peak = logits.max()
    if peak == -np.inf:
        return 0, -np.inf
    weights = np.exp(logits - peak)
    total = np.add.accumulate(weights)[-1]
    if stored == weights.dtype:
        return np.add.reduce(weights[:, None] * values, axis=0) / total, peak + np.log(total)
    return np.add.reduce(_as(stored, weights / total)[:, None] * values, axis=0), peak + np.log(total)


def _as(stored, x):
    """x after it was written down as `stored` and read again."""
    return x if stored == x.dtype else x.astype(stored).astype(x.dtype)
