"""Gradients of attention for tests: by definition in float64, and the textbook in float32 as the yardstick."""

from __future__ import annotations

import numpy as np

from streaming_attention.oracle import judge


def visible(queries, keys, *, causal=False, window=(None, None)):
    """(queries, keys), true where a key is seen."""
    distance = np.arange(keys) - (np.arange(queries)[:, None] + keys - queries)
    left, right = window
    right = 0 if causal else right
    seen = np.ones((queries, keys), bool)
    if left is not None:
        seen &= distance >= -left
    if right is not None:
        seen &= distance <= right
    return seen


def differentiate(dout, q, k, v, *, scale=None, **view):
    """By definition, in float64: dQ, dK, dV, output and log-sum-exp."""
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    scale = head_dim**-0.5 if scale is None else scale
    seen = visible(queries, keys, **view)
    dout, q, k, v = (x.astype(np.float64) for x in (dout, q, k, v))
    dq, out, lse = np.zeros(q.shape), np.zeros(q.shape), np.full(q.shape[:3], -np.inf)
    dk, dv = np.zeros(k.shape), np.zeros(k.shape)
    for b, h in np.ndindex(batch, heads):
        kv = b, h // (heads // kv_heads)
        logits = np.where(seen, scale * q[b, h] @ k[kv].T, -np.inf)
        peak = logits.max(axis=1, keepdims=True, initial=-np.inf)
        peak[peak == -np.inf] = 0
        weights = np.exp(logits - peak)
        total = weights.sum(axis=1, keepdims=True)
        some = total[:, 0] > 0
        lse[b, h, some] = (peak + np.log(total, where=total > 0, out=np.zeros_like(total)))[some, 0]
        weights /= np.where(total == 0, 1, total)
        out[b, h] = weights @ v[kv]
        delta = (dout[b, h] * out[b, h]).sum(axis=1, keepdims=True)
        ds = scale * weights * (dout[b, h] @ v[kv].T - delta)
        dq[b, h] = ds @ k[kv]
        dk[kv] += ds.T @ q[b, h]
        dv[kv] += weights.T @ dout[b, h]
    return dq, dk, dv, out, lse


def textbook(dout, q, k, v, out, lse, *, scale=None, order=slice(None), written=lambda x: x, **view):
    """dQ, dK, dV in float32 from what the forward pass left in float32, sums over head_dim taken in an order.

    `written` rounds the weights and their gradients as they are written down between two products.
    """
    dout, q, k, v, out = (x[..., order] for x in (dout, q, k, v, out))
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    scale = np.float32(head_dim**-0.5 if scale is None else scale)
    seen = visible(queries, keys, **view)
    dq, dk, dv = np.zeros(q.shape, np.float32), np.zeros(k.shape, np.float32), np.zeros(v.shape, np.float32)
    for b, h in np.ndindex(batch, heads):
        kv = b, h // (heads // kv_heads)
        logits = scale * _in_order(q[b, h], k[kv].T)
        weights = np.exp(np.where(seen, logits - np.where(lse[b, h] == -np.inf, 0, lse[b, h])[:, None], -np.inf))
        delta = np.add.accumulate(dout[b, h] * out[b, h], axis=1)[:, -1:]
        ds = written(scale * weights * (_in_order(dout[b, h], v[kv].T) - delta))
        weights = written(weights)
        dq[b, h] = _in_order(ds, k[kv])
        dk[kv] += _in_order(ds.T, q[b, h])
        dv[kv] += _in_order(weights.T, dout[b, h])
    back = np.argsort(np.arange(head_dim)[order])
    return tuple(x[..., back] for x in (dq, dk, dv))


def _in_order(a, b):
    """Matrix product whose sums are taken one term after the other."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for step in range(a.shape[1]):
        total += a[:, step, None] * b[step]
    return total


def assert_gradients(found, dout, q, k, v, *, rounded=np.float32, written=lambda x: x, **options):
    """Each gradient within twice the textbook's error.

    Where one weight dominates a gradient, the textbook's largest error is that of one logit, and small by luck now and
    then. So the yardstick is the worst of four textbooks that differ in the order of their sums over head_dim.

    `rounded` rounds to the precision of the arrays, in which the textbook's output and gradients are stored; `written`
    does with what it writes down between products, where the kernel under test multiplies numbers of 16 bits.
    """
    *reference, out, lse = differentiate(dout, q, k, v, **options)
    left = rounded(out).astype(np.float32), lse.astype(np.float32)
    orders = [np.random.default_rng(seed).permutation(q.shape[3]) for seed in range(4)]
    books = [textbook(dout, q, k, v, *left, order=order, written=written, **options) for order in orders]
    for name, gradient, exact, *plain in zip(("dq", "dk", "dv"), found, reference, *books, strict=True):
        assert gradient.shape == exact.shape, name
        verdict = judge(
            gradient, exact, max((rounded(x) for x in plain), key=lambda x: np.abs(x - exact).max(initial=0))
        )
        assert verdict.passed, (name, verdict)
