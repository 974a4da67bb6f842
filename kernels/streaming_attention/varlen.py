"""Attention of sequences of any lengths in one call."""

from __future__ import annotations

from streaming_attention import checks
from streaming_attention.common import check_common, new_lse, result, run, streaming_options


def attention_varlen(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k=None,
    *,
    causal=False,
    scale=None,
    window=None,
    softcap=None,
    sinks=None,
    alibi_slopes=None,
    threads=None,
    out=None,
    return_lse=False,
    **options,
):
    """:func:`attention` of sequences of any lengths, side by side along the tokens.

    Parameters
    ----------
    q : ndarray, (tokens, heads, head_dim)
    k, v : ndarray, (key tokens, kv_heads, head_dim)
    cu_seqlens_q, cu_seqlens_k : ndarray, (sequences + 1,), int32
        Where each sequence starts, then the end: from 0 to the tokens, never falling; a sequence may be empty. Keys'
        are the queries' unless given.

    The others as of :func:`attention`; ``causal``, ``window`` and ``alibi_slopes`` count within each sequence.

    Returns
    -------
    out : ndarray, (tokens, heads, head_dim)
    lse : ndarray, (heads, tokens), float32
        Only with ``return_lse``.

    Raises
    ------
    TypeError, ValueError
        As :func:`attention`.
    """
    axes = "tokens", "heads", "head_dim"
    given = q, k, v
    q, k, v = (checks.check_array(name, x, axes) for name, x in (("q", q), ("k", k), ("v", v)))
    checks.check_pair(k, v, given[1:])
    if k.shape[2] != q.shape[2]:
        raise ValueError(f"k: shape {k.shape} doesn't fit q's {q.shape}; head_dim must be equal")
    checks.check_heads(q.shape[1], k.shape[1], q.shape[2])
    starts_q = checks.check_starts("cu_seqlens_q", cu_seqlens_q, len(q), "q")
    given_k = ("cu_seqlens_q", cu_seqlens_q) if cu_seqlens_k is None else ("cu_seqlens_k", cu_seqlens_k)
    starts_k = checks.check_starts(*given_k, len(k), "k")
    if len(starts_k) != len(starts_q):
        raise ValueError(f"cu_seqlens_k: {len(starts_k)} entries, must be {len(starts_q)} as in cu_seqlens_q")
    arguments = check_common(q.shape[1], causal, scale, window, softcap, sinks, alibi_slopes, threads)
    arguments |= {"cu_seqlens_q": starts_q, "cu_seqlens_k": starts_k}
    read = {"q": q, "k": k, "v": v, **arguments}
    out, written = checks.check_out(out, given[0], read)
    lse = new_lse(return_lse, q.shape[1], len(q))
    run(False, q, k, v, written, lse, arguments | streaming_options(options))
    return result(out, lse)
