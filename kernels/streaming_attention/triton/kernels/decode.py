"""Attention of few queries over many keys: keys split into parts of a fixed size, then merged.

All query heads of a K/V head, and all its queries, are the rows of one program, so that K and V are read once. The size
of a part never depends on the number of threads, and neither do the bits of the result. NaN and infinity in V reach all
rows of a program of which one sees them, as in :mod:`prefill`.
"""

import triton
import triton.language as tl

from streaming_attention.triton.kernels.prefill import take_keys

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def stream_part(
    q, k, v, block_table, m, l, acc, last, stride_kb, stride_kt, stride_vb, stride_vt,
    start, stop, keys, page, scale, head_dim,
    MASKED: tl.constexpr, EVEN_D: tl.constexpr, PAGED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Take the keys from ``start`` to ``stop`` into the state of ROWS rows."""
    dims = tl.arange(0, BLOCK_D)
    for first in tl.range(start, stop, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        if PAGED:
            number = tl.load(block_table + first // page).to(tl.int64)
            tokens = first % page + tl.arange(0, BLOCK_N)
            where_k = k + number * stride_kb + tokens[:, None].to(tl.int64) * stride_kt + dims[None, :]
            where_v = v + number * stride_vb + tokens[:, None].to(tl.int64) * stride_vt + dims[None, :]
        else:
            where_k = k + columns[:, None].to(tl.int64) * stride_kt + dims[None, :]
            where_v = v + columns[:, None].to(tl.int64) * stride_vt + dims[None, :]
        if MASKED or not EVEN_D:
            inside = (columns[:, None] < keys) & (dims[None, :] < head_dim)
            keys_block = tl.load(where_k, mask=inside, other=0.0)
            values = tl.load(where_v, mask=inside, other=0.0)
        else:
            keys_block = tl.load(where_k)
            values = tl.load(where_v)
        m, l, acc = take_keys(q, keys_block, values, m, l, acc, first, last, scale, MASKED, BLOCK_N)
    return m, l, acc


@triton.jit
def decode(
    q, k, v, part_out, part_lse, block_table, lengths,
    stride_qb: tl.int64, stride_qh: tl.int64, stride_qt: tl.int64,
    stride_kb: tl.int64, stride_kh: tl.int64, stride_kt: tl.int64,
    stride_vb: tl.int64, stride_vh: tl.int64, stride_vt: tl.int64,
    stride_table: tl.int64,
    queries: tl.int32, keys: tl.int32, group: tl.int32, causal: tl.int32, head_dim: tl.int32, scale: tl.float32,
    split: tl.int32, page: tl.int32,
    PAGED: tl.constexpr, EVEN_D: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """State of one part of the keys for all rows (query heads of a K/V head x queries).

    Grid: (parts, kv_heads, batch). ``part_out`` is (batch, kv_heads, parts, rows, head_dim) f32, normalised within the
    part; ``part_lse`` is (batch, kv_heads, parts, rows), in log2. With PAGED, ``block_table`` (batch, pages) says where
    the tokens of each page lie (``page`` of them, a multiple of BLOCK_N), ``stride_kb`` is a page's, and ``lengths``
    holds each sequence's keys.
    """
    part, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows_used = group * queries
    if PAGED:
        keys = tl.load(lengths + batch)
        block_table += batch * stride_table
    else:
        k += batch * stride_kb
        v += batch * stride_vb
    k += head * stride_kh
    v += head * stride_vh
    dims = tl.arange(0, BLOCK_D)
    place = ((batch * tl.num_programs(1) + head) * tl.num_programs(0) + part) * rows_used
    reach = tl.where(causal != 0, keys - queries, keys)
    rows = tl.arange(0, ROWS)
    where_q = batch * stride_qb + (head * group + rows // queries) * stride_qh + (rows % queries) * stride_qt
    inside_q = (rows[:, None] < rows_used) & (dims[None, :] < head_dim)
    q_block = tl.load(q + where_q[:, None] + dims[None, :], mask=inside_q, other=0.0)
    m = tl.full([ROWS], -float("inf"), tl.float32)
    l = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    last = tl.minimum(rows % queries + reach, keys - 1)
    start = part * split
    stop = tl.minimum(start + split, keys)
    whole = tl.minimum(stop, tl.maximum(reach + 1, 0))  # up to here every row sees every key
    whole = start + tl.maximum(whole - start, 0) // BLOCK_N * BLOCK_N
    m, l, acc = stream_part(
        q_block, k, v, block_table, m, l, acc, last, stride_kb, stride_kt, stride_vb, stride_vt,
        start, whole, keys, page, scale, head_dim, False, EVEN_D, PAGED, ROWS, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    m, l, acc = stream_part(
        q_block, k, v, block_table, m, l, acc, last, stride_kb, stride_kt, stride_vb, stride_vt,
        whole, stop, keys, page, scale, head_dim, True, EVEN_D, PAGED, ROWS, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    acc = acc / tl.where(l == 0.0, 1.0, l)[:, None]
    where = (place + rows[:, None]) * head_dim + dims[None, :]
    tl.store(part_out + where, acc, mask=inside_q)
    tl.store(part_lse + place + rows, m + tl.log2(l), mask=rows < rows_used)


@triton.jit
def merge(
    part_out, part_lse, out, lse,
    stride_ob: tl.int64, stride_oh: tl.int64, stride_ot: tl.int64, stride_lb: tl.int64, stride_lh: tl.int64,
    parts: tl.int32, queries: tl.int32, group: tl.int32, head_dim: tl.int32,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Merge the parts of each row. Grid: (rows of a K/V head, kv_heads, batch)."""
    row, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = tl.num_programs(0)
    dims = tl.arange(0, BLOCK_D)
    place = (batch * tl.num_programs(1) + head) * parts * rows + row
    m = -float("inf")
    l = 0.0
    acc = tl.zeros([BLOCK_D], tl.float32)
    for part in tl.range(0, parts):
        here = place + part * rows
        part_m = tl.load(part_lse + here)
        m_new = tl.maximum(m, part_m)
        base = tl.where(m_new == -float("inf"), 0.0, m_new)
        alpha = tl.exp2(m - base)
        weight = tl.exp2(part_m - base)
        l = l * alpha + weight
        acc = acc * alpha + weight * tl.load(part_out + here * head_dim + dims, mask=dims < head_dim, other=0.0)
        m = m_new
    acc = acc / tl.where(l == 0.0, 1.0, l)
    query_head = head * group + row // queries
    out += batch * stride_ob + query_head * stride_oh + (row % queries) * stride_ot
    tl.store(out + dims, acc.to(out.dtype.element_ty), mask=dims < head_dim)
    tl.store(lse + batch * stride_lb + query_head * stride_lh + row % queries, (m + tl.log2(l)) * LN2)
