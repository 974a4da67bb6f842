"""Gradients of :func:`~streaming_attention.api.attention`: check everything, then compute."""

from __future__ import annotations

import numpy as np

from streaming_attention import checks
from streaming_attention.dtypes import words
from streaming_attention.streaming.backward_front import run_backward
from streaming_attention.streaming.front import AXES


def attention_backward(dout, q, k, v, out, lse, *, causal=False, scale=None, window=None, layout="bhtd", threads=None):
    """Gradients of a loss with respect to Q, K and V of attention.

    Parameters
    ----------
    dout : ndarray, (batch, heads, queries, head_dim)
        Gradient of the loss with respect to `out`.
    q, out : ndarray, (batch, heads, queries, head_dim), float32, bfloat16 (of ml_dtypes) or float16
        The forward pass's queries and what it returned. All arrays but `lse` have one dtype; any strides are taken.
    k, v : ndarray, (batch, kv_heads, keys, head_dim)
        ``heads`` is a multiple of ``kv_heads``.
    lse : ndarray, (batch, heads, queries), float32
        What the forward pass returned with ``return_lse``.
    causal, scale, window
        As in the forward pass.
    layout : {"bhtd", "bthd"}
        Order of the axes of `dout`, `q`, `k`, `v`, `out` and of the gradients; in "bthd" tokens come before heads.
    threads : int, optional
        As many as Numba's pool has unless given.

    Returns
    -------
    dq, dk, dv : ndarray
        Shaped as `q`, `k`, `v`, in their dtype; sums are taken in float32. Of bfloat16, weights and their gradients are
        rounded to it between products where the CPU multiplies it. `dk` and `dv` are sums over the query heads that
        share a K/V head. A query that sees no key gets 0 and gives nothing; NaN and infinity in a row reach only
        the gradients of rows that see it or that it sees. The same bits on any number of threads.

    Raises
    ------
    TypeError
        An argument of the wrong type.
    ValueError
        Shapes or dtypes that don't fit; the message names the argument, its value and what is allowed.

    Notes
    -----
    Weights are computed again from `lse`, so 5 matrix products in O(queries x keys x head_dim) time and O(tokens x
    head_dim) memory (FlashAttention-2, Dao 2023, section 3.1). Softcap, ALiBi, block tables and varlen batches have
    no backward pass here. Attention with sinks has: `lse` then contains them, and the gradient of a head's sink is
    ``-sum(exp(sink - lse) * sum(dout * out))`` over its queries.

    Examples
    --------
    >>> import numpy as np
    >>> from streaming_attention import attention, attention_backward
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 8, 100, 64), dtype=np.float32)
    >>> out, lse = attention(q, k, v, causal=True, return_lse=True)
    >>> dq, dk, dv = attention_backward(np.ones_like(out), q, k, v, out, lse, causal=True)
    >>> dq.shape
    (1, 8, 100, 64)
    """
    arrays = {"dout": dout, "q": q, "k": k, "v": v, "out": out}
    _check_arrays(arrays, lse, layout)
    causal = checks.check_flag("causal", causal)
    gradients = [np.empty(array.shape, array.dtype) for array in (q, k, v)]
    run_backward(
        *map(words, arrays.values()),
        np.ascontiguousarray(lse),
        *map(words, gradients),
        causal=causal,
        scale=checks.check_number("scale", scale),
        window=checks.check_window(window),
        layout=layout,
        threads=checks.check_threads_argument(threads),
    )
    return tuple(gradients)


def _check_arrays(arrays: dict, lse, layout) -> None:
    checks.check_layout("layout", layout)
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name}: {type(array).__name__} is not a numpy array")
    q, k = arrays["q"], arrays["k"]
    for name, array in arrays.items():
        if array.dtype.name not in checks.FLOATS:
            raise ValueError(f"{name}: dtype {array.dtype} is not supported; allowed: {', '.join(checks.FLOATS)}")
        if array.ndim != 4:
            raise ValueError(f"{name}: shape {array.shape} doesn't have the four axes of {layout!r}")
        if array.dtype != q.dtype:
            raise ValueError(f"{name}: dtype {array.dtype} differs from q's {q.dtype}")
    for name, like in (("dout", "q"), ("out", "q"), ("v", "k")):
        if arrays[name].shape != arrays[like].shape:
            raise ValueError(f"{name}: shape {arrays[name].shape} differs from {like}'s {arrays[like].shape}")
    batch, heads, queries, head_dim = (q.shape[axis] for axis in AXES[layout])
    kv_batch, kv_heads, _, kv_dim = (k.shape[axis] for axis in AXES[layout])
    if (kv_batch, kv_dim) != (batch, head_dim):
        raise ValueError(f"k: shape {k.shape} doesn't fit q's {q.shape}; batch and head_dim must be equal")
    checks.check_heads(heads, kv_heads, head_dim)
    _check_lse(lse, (batch, heads, queries))


def _check_lse(lse, shape) -> None:
    if not isinstance(lse, np.ndarray):
        raise TypeError(f"lse: {type(lse).__name__} is not a numpy array")
    if lse.dtype != np.float32:
        raise ValueError(f"lse: dtype {lse.dtype} is not supported; allowed: float32")
    if lse.shape != shape:
        raise ValueError(f"lse: shape {lse.shape}, must be {shape}: (batch, heads, queries)")
