"""Attention with every option by definition, in any precision: the reference for options and for storage formats."""

from __future__ import annotations

import numpy as np

EPS = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float16): 2.0**-10, "bf16": 2.0**-7}


def to_bf16(x):
    """uint16 that holds bfloat16, rounded to nearest even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def meaning(x):
    """fp32 values of an array in any format; uint16 holds bfloat16."""
    return from_bf16(x) if x.dtype == np.uint16 else x.astype(np.float32)


def rounding_to(name):
    """x -> x rounded to a format, as fp32."""
    if name == "bf16":
        return lambda x: from_bf16(to_bf16(np.asarray(x, np.float32)))
    kind = {"fp32": np.float32, "fp16": np.float16}[name]
    return lambda x: np.asarray(x).astype(kind).astype(np.float32)


def seen(queries, keys, causal=False, window=(None, None), offset=None):
    """Which keys each query sees, (queries, keys) of bool."""
    place = np.arange(queries)[:, None] + (keys - queries if offset is None else offset)
    gap = np.arange(keys)[None] - place
    left, right = window
    right = 0 if causal else right
    return (gap >= (-np.inf if left is None else -left)) & (gap <= (np.inf if right is None else right))


def textbook(
    q, k, v, *, causal=False, scale=None, window=(None, None), offset=None, softcap=0, sinks=None, slopes=None,
    rounded=None,
):  # fmt: skip
    """Output and log-sum-exp, (batch, heads, queries[, head_dim]).

    float64 throughout; with `rounded`, every tensor of the textbook is rounded on the way (logits, weights, output).
    """
    keep = rounded or (lambda x: x)
    kind = np.float64 if rounded is None else np.float32
    q, k, v = (x.astype(kind) for x in (q, k, v))
    queries, keys, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    mask = seen(queries, keys, causal, window, offset)
    with np.errstate(all="ignore"):
        logits = keep(np.einsum("bhqd,bhkd->bhqk", q, k) * kind(q.shape[-1] ** -0.5 if scale is None else scale))
        if softcap:
            logits = keep(softcap * np.tanh(logits / kind(softcap)))
        if slopes is not None:
            place = np.arange(queries)[:, None] + (keys - queries if offset is None else offset)
            logits = keep(logits - slopes.astype(kind)[:, None, None] * np.abs(np.arange(keys)[None] - place))
        logits = np.where(mask, logits, -np.inf)
        peak = logits.max(-1, keepdims=True, initial=-np.inf)
        if sinks is not None:
            peak = np.maximum(peak, sinks.astype(kind)[:, None, None])
        origin = np.where(peak == -np.inf, 0, peak)
        weights = np.exp(logits - origin)
        total = weights.sum(-1, keepdims=True)
        if sinks is not None:
            total = total + np.exp(sinks.astype(kind)[:, None, None] - origin)
        weights = keep(np.where(total > 0, weights / np.where(total > 0, total, 1), 0))
        out = np.einsum("bhqk,bhkd->bhqd", weights, np.where(np.isfinite(v), v, 0) if not mask.all() else v)
        return keep(out), (origin + np.log(total))[..., 0]


def assert_as_good(out, lse, arrays, storage="fp32", **options):
    """Errors at most twice those of the textbook rounded to `storage`, and 4 units in the last place, as in `judge`."""
    values = [meaning(x) for x in arrays]
    exact, exact_lse = textbook(*values, **options)
    plain, plain_lse = textbook(*values, rounded=rounding_to(storage), **options)
    ulp = {"fp32": 2.0**-23, "fp16": 2.0**-10, "bf16": 2.0**-7}[storage]
    out = meaning(out).astype(np.float64)
    for norm in (np.linalg.norm, lambda x: np.abs(x).max(initial=0)):
        error, allowed = norm((out - exact).ravel()), norm((plain - exact).ravel())
        assert error <= 2 * allowed + 4 * ulp * norm(exact.ravel()), (error, allowed)
    if lse is not None:
        finite = np.isfinite(exact_lse)
        np.testing.assert_array_equal(lse[~finite], exact_lse[~finite])
        error, allowed = (np.abs(x[finite] - exact_lse[finite]).max(initial=0) for x in (lse, plain_lse))
        assert error <= 2 * allowed + 4 * 2.0**-23 * np.abs(exact_lse[finite]).max(initial=1), (error, allowed)
