"""Attention problems for tests, and what it means that an answer is right."""

from __future__ import annotations

import numpy as np

from streaming_attention.oracle import judge, oracle, plain
from streaming_attention.registry import METHODS

AVAILABLE = [name for name, method in METHODS.items() if method.available() is None]
SAME_BITS = [name for name in AVAILABLE if METHODS[name].same_bits]
EPS = float(np.finfo(np.float32).eps)


def draw(batch=1, heads=1, kv_heads=1, queries=1, keys=1, head_dim=16, *, seed=0):
    """Standard normal q, k, v in float32."""
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((batch, heads, queries, head_dim), dtype=np.float32)
    k, v = rng.standard_normal((2, batch, kv_heads, keys, head_dim), dtype=np.float32)
    return q, k, v


def assert_right(out, lse, q, k, v, *, causal=False, scale=None, rows=None):
    """Output (of some rows) within twice the textbook's error, log-sum-exp too; ``lse`` may be None."""
    reference, reference_lse = oracle(q, k, v, causal=causal, scale=scale, rows=rows)
    textbook, textbook_lse = plain(q, k, v, causal=causal, scale=scale, rows=rows)
    assert out.shape == reference.shape
    assert out.dtype == q.dtype
    verdict = judge(out, reference, textbook)
    assert verdict.passed, verdict
    if lse is not None:
        finite = np.isfinite(reference_lse)
        np.testing.assert_array_equal(lse[~finite], reference_lse[~finite])
        verdict = judge(lse[finite], reference_lse[finite], textbook_lse[finite])
        assert verdict.passed, verdict


def rounding(q, k, v, scale=None):
    """What rounding alone may change in an output: a logit of size s is known to s ulps, and so is its weight."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    logits = np.einsum("bhqd,bhkd->bhqk", q.astype(np.float64), np.repeat(k, group, axis=1)) * scale
    return 8 * EPS * (1 + np.abs(logits).max(initial=0)) * np.abs(v).max(initial=0)
