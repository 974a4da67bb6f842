"""Attention over a cache in pages: decode and chunked prefill."""

from __future__ import annotations

import numpy as np

from streaming_attention import checks
from streaming_attention.common import check_common, new_lse, result, run, streaming_options
from streaming_attention.streaming.dispatch import is_few

PAGE_AXES = {
    checks.AXES["bthd"]: ("pages", "page_size", "kv_heads", "head_dim"),
    checks.AXES["bhtd"]: ("pages", "kv_heads", "page_size", "head_dim"),
}
STORED = (*checks.FLOATS, "int8")
INT8_ROWS = 64
"""Query rows per K/V head that the decode kernel takes at a time over int8 pages, which prefill doesn't read."""


def attention_paged(
    q,
    k_pages,
    v_pages,
    block_table,
    seqlens,
    *,
    causal=True,
    scale=None,
    window=None,
    softcap=None,
    sinks=None,
    alibi_slopes=None,
    k_scale=None,
    v_scale=None,
    layout="bhtd",
    kv_layout="bthd",
    threads=None,
    out=None,
    return_lse=False,
    **options,
):
    """:func:`attention` over a cache in pages, of one query a sequence (decode) or several (chunked prefill).

    Parameters
    ----------
    q : ndarray, (batch, heads, queries, head_dim), float32, float16 or bfloat16
        The last queries of each sequence: query i stands at key ``seqlens - queries + i``.
    k_pages, v_pages : ndarray, (pages, page_size, kv_heads, head_dim), float32, float16, bfloat16 or int8
        ``page_size`` is a multiple of 16. With ``kv_layout="bhtd"``, (pages, kv_heads, page_size, head_dim).
    block_table : ndarray, (batch, pages of a sequence), int32
        ``block_table[b, n]`` is the page that holds keys ``n * page_size`` and following of sequence b. Entries beyond
        a sequence's last page may hold anything.
    seqlens : ndarray, (batch,), int32
        Keys of each sequence. What its last page holds beyond them is never read.
    k_scale, v_scale : ndarray, (pages, kv_heads, page_size), float32
        With int8 pages: what each row is multiplied with, whatever ``kv_layout``.
    layout : str
        Of ``q`` and ``out``, as in :func:`attention`.

    The others and the results as of :func:`attention`.

    Raises
    ------
    TypeError, ValueError
        As :func:`attention`; a length that the table doesn't hold, an entry in use that isn't a page.

    Notes
    -----
    The same bits as :func:`attention` over the same keys in one piece. Pages of (kv_heads, page_size, head_dim) are
    read fastest; PagedAttention is Kwon et al.'s (2023).
    """
    axes, kv_axes = checks.check_layout("layout", layout), PAGE_AXES[checks.check_layout("kv_layout", kv_layout)]
    given = q, k_pages, v_pages
    q = checks.check_array("q", q, axes)
    k, v = (checks.check_array(f"{x}_pages", y, kv_axes, STORED) for x, y in (("k", k_pages), ("v", v_pages)))
    checks.check_pair(k, v, given[1:], ("k_pages", "v_pages"))
    if k.shape[3] != q.shape[3]:
        raise ValueError(f"k_pages: shape {k.shape} doesn't fit q's {q.shape}; head_dim must be equal")
    h, t = axes.index("heads"), axes.index("tokens")
    heads, queries = q.shape[h], q.shape[t]
    kv_heads, page_size = k.shape[kv_axes.index("kv_heads")], k.shape[kv_axes.index("page_size")]
    checks.check_heads(heads, kv_heads, q.shape[3], "k_pages")
    table, lengths = checks.check_paging(block_table, seqlens, len(q), len(k), page_size)
    arguments = check_common(heads, causal, scale, window, softcap, sinks, alibi_slopes, threads)
    arguments |= {"block_table": table, "seqlens": lengths}
    arguments |= checks.check_scales(k_scale, v_scale, k.dtype.char, (len(k), kv_heads, page_size))
    out, written = checks.check_out(out, given[0], {"q": q, "k_pages": k, "v_pages": v, **arguments})
    arguments |= {"layout": layout, "kv_layout": kv_layout, **streaming_options(options)}
    lse = new_lse(return_lse, len(q), heads, queries)
    if k.dtype.char == "b":
        _run_in_chunks(q, k, v, written, lse, t, max(1, INT8_ROWS * kv_heads // heads), arguments)
    else:
        few = is_few(heads // kv_heads, queries, q.dtype.char == k.dtype.char == "H")
        run(few, q, k, v, written, lse, arguments)
    return result(out, lse)


def _run_in_chunks(q, k, v, out, lse, axis: int, size: int, arguments: dict) -> None:
    """The decode kernel on `size` queries at a time; `axis` is that of the queries in `q` and `out`."""
    queries, keys = (
        q.shape[axis],
        arguments["block_table"].shape[1] * k.shape[1 if arguments["kv_layout"] == "bthd" else 2],
    )
    for first in range(0, queries, size):
        part = (slice(None),) * axis + (slice(first, first + size),)
        some = None if lse is None else np.empty_like(lse[:, :, first : first + size], order="C")
        run(True, q[part], k, v, out[part], some, arguments | {"offset": keys - queries + first})
        if lse is not None:
            lse[:, :, first : first + size] = some
