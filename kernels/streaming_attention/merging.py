"""Attention over two sets of keys from attention over each."""

from __future__ import annotations

import numpy as np


def merge(out_a, lse_a, out_b, lse_b):
    """Merge attention over two disjoint sets of keys into attention over both.

    The operation is associative and, but for rounding, commutative: a cache can be cut anywhere and its parts computed
    anywhere.

    Parameters
    ----------
    out_a, out_b : ndarray, (..., head_dim)
    lse_a, lse_b : ndarray, (...)
        As :func:`attention` returns them with ``return_lse``.

    Returns
    -------
    out, lse : ndarray
        Two parts without a visible key give 0 and -inf.

    Raises
    ------
    ValueError
        Shapes that don't fit.

    Notes
    -----
    With ``sinks``, give them to one part only: a sink is in the log-sum-exp of its part, and must count once.
    """
    _check_parts(out_a, lse_a, out_b, lse_b)
    peak = np.maximum(lse_a, lse_b)
    origin = np.where(peak == -np.inf, 0, peak).astype(peak.dtype)
    weight_a, weight_b = np.exp(lse_a - origin), np.exp(lse_b - origin)
    total = weight_a + weight_b
    divisor = np.where(total == 0, 1, total).astype(total.dtype)
    out = out_a * (weight_a / divisor)[..., None] + out_b * (weight_b / divisor)[..., None]
    with np.errstate(divide="ignore"):
        return out, origin + np.log(total)


def _check_parts(out_a, lse_a, out_b, lse_b) -> None:
    if out_a.shape != out_b.shape:
        raise ValueError(f"out_b: shape {out_b.shape} differs from out_a's {out_a.shape}")
    for name, lse in (("lse_a", lse_a), ("lse_b", lse_b)):
        if lse.shape != out_a.shape[:-1]:
            raise ValueError(f"{name}: shape {lse.shape}, must be {out_a.shape[:-1]}, that of out without head_dim")
