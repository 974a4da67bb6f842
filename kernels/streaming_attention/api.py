"""The public face: check everything, choose a method, compute."""

from __future__ import annotations

import math
import numbers

import numpy as np

from streaming_attention.inputs import NUMPY_DTYPES, Inputs
from streaming_attention.machine.layout import Layout
from streaming_attention.parallel import check_threads, most_threads
from streaming_attention.registry import find_method
from streaming_attention.workload import Workload

_NAMES = {dtype: name for name, dtype in NUMPY_DTYPES.items()}


def attention(q, k, v, *, causal=False, scale=None, method="streaming", threads=None, return_lse=False, **options):
    """Exact attention, softmax(scale * Q K^T) V, on the CPU.

    Parameters
    ----------
    q : ndarray, (batch, heads, queries, head_dim), float32
    k, v : ndarray, (batch, kv_heads, keys, head_dim), float32
        ``heads`` is a multiple of ``kv_heads``: query head h uses K/V head h // (heads // kv_heads), without a copy.
        Any strides are taken; an array that isn't C-contiguous and aligned is copied first.
    causal : bool
        Query i sees the keys j <= i + keys - queries (bottom-right aligned, so that a query over a cache sees it all).
    scale : float, optional
        Factor on the logits, head_dim ** -0.5 unless given.
    method : str
        A name in :data:`streaming_attention.registry.METHODS`.
    threads : int, optional
        As many as Numba's pool has (one a core, or ``NUMBA_NUM_THREADS``) unless given.
    return_lse : bool
        Whether to return the log-sum-exp of every row's logits too, for :func:`merge`.
    **options
        The method's own, such as ``block`` of ``streaming``.

    Returns
    -------
    out : ndarray, (batch, heads, queries, head_dim), float32
        A query that sees no key gets 0. NaN reaches the queries that see it (for ``gemm`` see its module).
    lse : ndarray, (batch, heads, queries), float32
        Natural logarithm, -inf for a query that sees no key. Only with ``return_lse``.

    Raises
    ------
    TypeError
        An argument of the wrong type.
    ValueError
        Shapes that don't fit, a dtype or option the method doesn't take, a method that can't do this or isn't
        installed; the message names the argument, its value and what is allowed.

    Notes
    -----
    O(queries x keys x head_dim) time; ``streaming`` needs O(queries x head_dim) memory beside the inputs and gives the
    same bits on any number of threads. Calls from several Python threads are safe: parallel regions take turns. Where
    Numba has only its ``workqueue`` layer, that holds as long as nobody else's parallel Numba code runs at the same
    time.

    Examples
    --------
    >>> import numpy as np
    >>> from streaming_attention import attention
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 8, 100, 64), dtype=np.float32)
    >>> attention(q, k, v, causal=True).shape
    (1, 8, 100, 64)
    """
    workload, scale, threads = _workload(q, k, v, causal), _check_scale(scale), _check_threads(threads)
    chosen = find_method(method)
    options = chosen.complete(options)
    reason = chosen.infeasible(workload, Layout(threads=threads))
    if reason:
        raise ValueError(f"method: {reason}")
    q, k, v = (np.require(array, requirements=("C_CONTIGUOUS", "ALIGNED")) for array in (q, k, v))
    inputs = Inputs(workload, q, k, v, 0, workload.keys, scale)
    prepared = chosen.load()(inputs, threads, None, options)
    try:
        if return_lse and prepared.lse is None:
            raise ValueError(f"return_lse: {method} gives no log-sum-exp")
        out = prepared.run()
    finally:
        prepared.close()
    return (out, prepared.lse) if return_lse else out


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


def _workload(q, k, v, causal) -> Workload:
    """The call as a workload, once its arrays are known to fit together."""
    for name, array in (("q", q), ("k", k), ("v", v)):
        _check_array(name, array)
    if not isinstance(causal, bool | np.bool_):
        raise TypeError(f"causal: {causal!r} is not a bool")
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    if k.shape != v.shape:
        raise ValueError(f"v: shape {v.shape} differs from k's {k.shape}")
    if k.shape[0] != batch or k.shape[3] != head_dim:
        raise ValueError(f"k: shape {k.shape} doesn't fit q's {q.shape}; batch and head_dim must be equal")
    for name, size in (("heads of q", heads), ("heads of k", kv_heads), ("head_dim", head_dim)):
        if size == 0:
            raise ValueError(f"{name}: 0, must be at least 1")
    if heads % kv_heads:
        raise ValueError(f"heads of q: {heads} is not a multiple of the {kv_heads} heads of k")
    dtype = _NAMES[q.dtype]
    return Workload("call", batch, heads, kv_heads, queries, keys, head_dim, bool(causal), dtype)


def _check_array(name: str, array) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: {type(array).__name__} is not a numpy array")
    if array.dtype not in _NAMES:
        raise ValueError(f"{name}: dtype {array.dtype} is not supported; allowed: {', '.join(map(str, _NAMES))}")
    if array.ndim != 4:
        raise ValueError(f"{name}: shape {array.shape} is not (batch, heads, tokens, head_dim)")


def _check_scale(scale) -> float | None:
    if scale is None:
        return None
    if not isinstance(scale, numbers.Real) or isinstance(scale, bool):
        raise TypeError(f"scale: {scale!r} is not a number")
    if not math.isfinite(scale):
        raise ValueError(f"scale: {scale!r} is not finite")
    return float(scale)


def _check_threads(threads) -> int:
    if threads is None:
        return most_threads()
    if not isinstance(threads, numbers.Integral) or isinstance(threads, bool):
        raise TypeError(f"threads: {threads!r} is not an integer")
    check_threads(threads)
    return int(threads)


def _check_parts(out_a, lse_a, out_b, lse_b) -> None:
    if out_a.shape != out_b.shape:
        raise ValueError(f"out_b: shape {out_b.shape} differs from out_a's {out_a.shape}")
    for name, lse in (("lse_a", lse_a), ("lse_b", lse_b)):
        if lse.shape != out_a.shape[:-1]:
            raise ValueError(f"{name}: shape {lse.shape}, must be {out_a.shape[:-1]}, that of out without head_dim")
