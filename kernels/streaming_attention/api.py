"""The public face: check everything, choose a kernel, compute."""

from __future__ import annotations

from streaming_attention import checks
from streaming_attention.common import check_common, new_lse, prepare, result, streaming_options
from streaming_attention.merging import merge
from streaming_attention.others import run_method
from streaming_attention.paged import attention_paged
from streaming_attention.registry import find_method
from streaming_attention.repeats import find, form_of, remember
from streaming_attention.streaming.dispatch import choose_threads, is_few
from streaming_attention.varlen import attention_varlen

__all__ = ["attention", "attention_paged", "attention_varlen", "merge"]


def attention(
    q,
    k,
    v,
    *,
    causal=False,
    scale=None,
    window=None,
    softcap=None,
    sinks=None,
    alibi_slopes=None,
    layout="bhtd",
    method=None,
    threads=None,
    out=None,
    return_lse=False,
    **options,
):
    """Exact attention, softmax(scale * Q K^T) V, on the CPU.

    Parameters
    ----------
    q : ndarray, (batch, heads, queries, head_dim), float32, float16 or bfloat16 (``ml_dtypes.bfloat16``)
        Any strides are read in place; only an array that isn't aligned is copied.
    k, v : ndarray, (batch, kv_heads, keys, head_dim), the same dtypes, alike
        ``heads`` is a multiple of ``kv_heads``: query head h uses K/V head h // (heads // kv_heads), without a copy.
    causal : bool
        Query i sees the keys j <= i + keys - queries (bottom-right aligned, so that a query over a cache sees it all).
    scale : float, optional
        Factor on the logits, head_dim ** -0.5 unless given.
    window : (int, int), optional
        Keys seen before and after a query's own place, i + keys - queries; -1 or None: all of that side.
    softcap : float, optional
        Logits become ``softcap * tanh(logits / softcap)``, before anything is added to them.
    sinks : ndarray, (heads,), float32, optional
        A logit more for each head, which every query sees, without a V.
    alibi_slopes : ndarray, (heads,), float32, optional
        ``-slope * |i + keys - queries - j|`` is added to the logits.
    layout : str
        ``"bhtd"``, or ``"bthd"`` for (batch, tokens, heads, head_dim) of all arrays but the log-sum-exp.
    method : str, optional
        A name in :data:`streaming_attention.registry.METHODS`; the fastest kernel for these shapes unless given. The
        options on logits, 16-bit dtypes and layouts are ``streaming``'s; other methods say that they have none.
    threads : int, optional
        Up to as many as Numba's pool has (one a core, or ``NUMBA_NUM_THREADS``).
    out : ndarray, q's shape, q's dtype or float32, optional
        Receives the output; any strides, not overlapping the inputs.
    return_lse : bool
        Whether to return the log-sum-exp of every row's logits too, for :func:`merge`.
    **options
        The method's own, such as ``block`` and ``isa`` of ``streaming``.

    Returns
    -------
    out : ndarray, q's shape and dtype
        A query that sees no key gets 0. NaN reaches the queries that see it (products of
        ``gemm`` and of the Triton methods carry it further; see their modules).
    lse : ndarray, (batch, heads, queries), float32
        Natural logarithm, the sink included; -inf for a query that sees no key and no sink. Only with ``return_lse``.

    Raises
    ------
    TypeError
        An argument of the wrong type.
    ValueError
        Shapes that don't fit, a dtype or option the method doesn't take, a method that can't do this or isn't
        installed; the message names the argument, its value and what is allowed.

    Notes
    -----
    O(queries x keys x head_dim) time; memory O(threads x head_dim) beside the inputs and, for few queries, O(rows x
    head_dim) for every 1024 keys. The same bits on any number of threads. The online softmax is Milakov and
    Gimelshein's (2018), blocked as in FlashAttention (Dao et al., 2022). Calls from several Python threads are safe.

    Examples
    --------
    >>> import numpy as np
    >>> from streaming_attention import attention
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 1, 8, 100, 64), dtype=np.float32)
    >>> attention(q, k, v, causal=True).shape
    (1, 8, 100, 64)
    """
    form = None
    if method is None and window is None and out is None and sinks is None and alibi_slopes is None and not options:
        form = form_of((q, k, v), (causal, scale, softcap, layout, threads, return_lse))
        repeat = find(form)
        if repeat is not None:
            return repeat(q, k, v)
    axes = checks.check_layout("layout", layout)
    given = q, k, v
    q, k, v = (checks.check_array(name, x, axes) for name, x in (("q", q), ("k", k), ("v", v)))
    checks.check_pair(k, v, given[1:])
    h, t = axes.index("heads"), axes.index("tokens")
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        raise ValueError(f"k: shape {k.shape} doesn't fit q's {q.shape}; batch and head_dim must be equal")
    heads, kv_heads, queries, head_dim = q.shape[h], k.shape[h], q.shape[t], q.shape[3]
    checks.check_heads(heads, kv_heads, head_dim)
    arguments = check_common(heads, causal, scale, window, softcap, sinks, alibi_slopes, threads)
    if method is not None and find_method(method).name != "streaming":
        return run_method(find_method(method), *given, layout, arguments, out, return_lse, options)
    arguments |= streaming_options(options)
    read = {"q": q, "k": k, "v": v, "sinks": arguments.get("sinks"), "alibi_slopes": arguments.get("slopes")}
    out, written = checks.check_out(out, given[0], read)
    lse = new_lse(return_lse, q.shape[0], heads, queries)
    rows = heads // kv_heads * queries
    if method is None:
        work = q.shape[0] * kv_heads * rows * k.shape[t] * head_dim
        arguments["threads"] = choose_threads(work, arguments["threads"])
    few = is_few(heads // kv_heads, queries, q.dtype.char == k.dtype.char == "H")
    call = prepare(few, q, k, v, written, lse, arguments | {"layout": layout})
    call()
    remember(form, call, out, lse)
    return result(out, lse)
