"""Attention of many queries: a block of queries per program, keys streamed past it in blocks (online softmax).

The state of a row is its maximum ``m``, the sum ``l`` of exponentials and the unnormalised output ``acc``, all relative
to ``m``; a block of keys that raises ``m`` rescales the other two. See Milakov and Gimelshein 2018, Dao 2023.

A product multiplies what a row doesn't see by 0, so NaN and infinity in V reach all rows of a block of queries of which
one sees them. Keys behind the end are not read at all.
"""

import triton
import triton.language as tl

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def load_keys(
    tensor, first, stride, keys, head_dim,
    MASKED: tl.constexpr, EVEN_D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Rows of K or V from ``first`` on; zeros behind the last key and behind head_dim."""
    columns, dims = first + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    where = tensor + columns[:, None].to(tl.int64) * stride + dims[None, :]
    if MASKED or not EVEN_D:
        return tl.load(where, mask=(columns[:, None] < keys) & (dims[None, :] < head_dim), other=0.0)
    else:
        return tl.load(where)


@triton.jit
def take_keys(q, keys_block, values, m, l, acc, first, last, scale, MASKED: tl.constexpr, BLOCK_N: tl.constexpr):
    """A block of keys into the state of some rows."""
    scores = tl.dot(q, tl.trans(keys_block), input_precision="ieee") * scale
    if MASKED:
        columns = first + tl.arange(0, BLOCK_N)
        scores = tl.where(columns[None, :] <= last[:, None], scores, -float("inf"))
    m_new = tl.maximum(m, tl.max(scores, 1))
    base = tl.where(m_new == -float("inf"), 0.0, m_new)
    p = tl.exp2(scores - base[:, None])
    alpha = tl.exp2(m - base)
    l = l * alpha + tl.sum(p, 1)
    acc = tl.dot(p.to(values.dtype), values, acc * alpha[:, None], input_precision="ieee")
    return m_new, l, acc


@triton.jit
def stream_keys(
    q, k, v, m, l, acc, stride_k, stride_v, start, stop, keys, last, scale, head_dim,
    MASKED: tl.constexpr, EVEN_D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Take the keys from ``start`` to ``stop`` into the state; ``last`` is the last key that each row sees."""
    for first in tl.range(start, stop, BLOCK_N):
        keys_block = load_keys(k, first, stride_k, keys, head_dim, MASKED, EVEN_D, BLOCK_N, BLOCK_D)
        values = load_keys(v, first, stride_v, keys, head_dim, MASKED, EVEN_D, BLOCK_N, BLOCK_D)
        m, l, acc = take_keys(q, keys_block, values, m, l, acc, first, last, scale, MASKED, BLOCK_N)
    return m, l, acc


@triton.jit
def load_queries(q, start, stride_qt, queries, head_dim, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows of Q from ``start`` on and a state that has seen no key."""
    rows, dims = start + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < queries) & (dims[None, :] < head_dim)
    q_block = tl.load(q + rows[:, None].to(tl.int64) * stride_qt + dims[None, :], mask=inside, other=0.0)
    m = tl.full([BLOCK_M], -float("inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)
    return q_block, m, l, tl.zeros([BLOCK_M, BLOCK_D], tl.float32)


@triton.jit
def store_rows(out, lse, m, l, acc, start, stride_ot, queries, head_dim, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):
    """The output and lse of rows that have seen all their keys."""
    rows, dims = start + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < queries) & (dims[None, :] < head_dim)
    acc = acc * (1.0 / tl.where(l == 0.0, 1.0, l))[:, None]
    tl.store(out + rows[:, None].to(tl.int64) * stride_ot + dims[None, :], acc.to(out.dtype.element_ty), mask=inside)
    tl.store(lse + rows, (m + tl.log2(l)) * LN2, mask=rows < queries)


@triton.jit
def prefill(
    q, k, v, out, lse, starts_q, starts_k,
    stride_qb: tl.int64, stride_qh: tl.int64, stride_qt: tl.int64,
    stride_kb: tl.int64, stride_kh: tl.int64, stride_kt: tl.int64,
    stride_vb: tl.int64, stride_vh: tl.int64, stride_vt: tl.int64,
    stride_ob: tl.int64, stride_oh: tl.int64, stride_ot: tl.int64,
    stride_lb: tl.int64, stride_lh: tl.int64,
    queries: tl.int32, keys: tl.int32, group: tl.int32, causal: tl.int32, head_dim: tl.int32, scale: tl.float32,
    RAGGED: tl.constexpr, EVEN_D: tl.constexpr, PAIR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """``out = softmax(scale q k^T) v`` per head, and its ``lse``.

    Grid: (blocks of queries, heads, batch). With RAGGED, ``starts_q`` and ``starts_k`` (batch + 1 offsets each) cut the
    token axis into sequences. ``causal`` aligns the last query with the last key. With PAIR a program takes two blocks
    of queries past the same keys, so that these are packed once.
    """
    block = tl.num_programs(0) - 1 - tl.program_id(0)  # long rows first, so that threads end together
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    if RAGGED:
        first_q, first_k = tl.load(starts_q + batch), tl.load(starts_k + batch)
        queries = tl.load(starts_q + batch + 1) - first_q
        keys = tl.load(starts_k + batch + 1) - first_k
        q += first_q * stride_qt
        k += first_k * stride_kt
        v += first_k * stride_vt
        out += first_q * stride_ot
        lse += first_q
        batch = batch * 0
    start = block * BLOCK_M * (2 if PAIR else 1)
    if start < queries:
        q += batch * stride_qb + head * stride_qh
        k += batch * stride_kb + (head // group) * stride_kh
        v += batch * stride_vb + (head // group) * stride_vh
        out += batch * stride_ob + head * stride_oh
        lse += batch * stride_lb + head * stride_lh

        reach = tl.where(causal != 0, keys - queries, keys)  # how far past its own index a row sees
        whole = tl.maximum(tl.minimum(start + 1 + reach, keys), 0) // BLOCK_N * BLOCK_N
        q0, m0, l0, acc0 = load_queries(q, start, stride_qt, queries, head_dim, BLOCK_M, BLOCK_D)
        last0 = tl.minimum(start + tl.arange(0, BLOCK_M) + reach, keys - 1)
        stop0 = tl.minimum(keys, tl.maximum(start + BLOCK_M + reach, 0))
        if PAIR:
            other = start + BLOCK_M
            q1, m1, l1, acc1 = load_queries(q, other, stride_qt, queries, head_dim, BLOCK_M, BLOCK_D)
            for first in tl.range(0, whole, BLOCK_N):
                keys_block = load_keys(k, first, stride_kt, keys, head_dim, False, EVEN_D, BLOCK_N, BLOCK_D)
                values = load_keys(v, first, stride_vt, keys, head_dim, False, EVEN_D, BLOCK_N, BLOCK_D)
                m0, l0, acc0 = take_keys(q0, keys_block, values, m0, l0, acc0, first, last0, scale, False, BLOCK_N)
                m1, l1, acc1 = take_keys(q1, keys_block, values, m1, l1, acc1, first, last0, scale, False, BLOCK_N)
            last1 = tl.minimum(other + tl.arange(0, BLOCK_M) + reach, keys - 1)
            stop1 = tl.minimum(keys, tl.maximum(other + BLOCK_M + reach, 0))
            m1, l1, acc1 = stream_keys(
                q1, k, v, m1, l1, acc1, stride_kt, stride_vt, whole, stop1, keys, last1, scale, head_dim,
                True, EVEN_D, BLOCK_N, BLOCK_D,
            )  # fmt: skip
            store_rows(out, lse, m1, l1, acc1, other, stride_ot, queries, head_dim, BLOCK_M, BLOCK_D)
        else:
            m0, l0, acc0 = stream_keys(
                q0, k, v, m0, l0, acc0, stride_kt, stride_vt, 0, whole, keys, last0, scale, head_dim,
                False, EVEN_D, BLOCK_N, BLOCK_D,
            )  # fmt: skip
        m0, l0, acc0 = stream_keys(
            q0, k, v, m0, l0, acc0, stride_kt, stride_vt, whole, stop0, keys, last0, scale, head_dim,
            True, EVEN_D, BLOCK_N, BLOCK_D,
        )  # fmt: skip
        store_rows(out, lse, m0, l0, acc0, start, stride_ot, queries, head_dim, BLOCK_M, BLOCK_D)
