"""Gradients of attention: scores are computed again from ``lse``, nothing of size queries x keys is stored.

With P = exp(scale q k^T - lse), dP = dO v^T and dS = P (dP - rowsum(dO O)): dV = P^T dO, dQ = scale dS K, dK = scale
dS^T Q. One kernel owns blocks of keys and makes dK and dV, the other owns blocks of queries and makes dQ; neither needs
atomics, so the bits are the same on any number of threads.
"""

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def row_sums(out, grad, delta, stride_b: tl.int64, stride_h: tl.int64, stride_t: tl.int64,
             queries: tl.int32, head_dim: tl.int32, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr):  # fmt: skip
    """``delta = rowsum(out * grad)``. Grid: (blocks of queries, heads, batch)."""
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows, dims = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    place = batch * stride_b + head * stride_h + rows[:, None].to(tl.int64) * stride_t + dims[None, :]
    inside = (rows[:, None] < queries) & (dims[None, :] < head_dim)
    product = tl.load(out + place, mask=inside, other=0.0).to(tl.float32) * tl.load(
        grad + place, mask=inside, other=0.0
    ).to(tl.float32)
    tl.store(delta + (batch * tl.num_programs(1) + head) * queries + rows, tl.sum(product, 1), mask=rows < queries)


@triton.jit
def keys_gradient(
    q, k, v, grad, lse, delta, grad_k, grad_v,
    stride_qb: tl.int64, stride_qh: tl.int64, stride_qt: tl.int64,
    stride_kb: tl.int64, stride_kh: tl.int64, stride_kt: tl.int64,
    queries: tl.int32, keys: tl.int32, group: tl.int32, causal: tl.int32, head_dim: tl.int32, scale: tl.float32,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dK and dV of a block of keys, summed over the query heads that share it. Grid: (blocks of keys, kv_heads, batch).

    ``q`` and ``grad`` have one set of strides, ``k, v, grad_k, grad_v`` another.
    """
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    columns, dims = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    inside_k = (columns[:, None] < keys) & (dims[None, :] < head_dim)
    place_k = batch * stride_kb + head * stride_kh + columns[:, None].to(tl.int64) * stride_kt + dims[None, :]
    k_block = tl.load(k + place_k, mask=inside_k, other=0.0)
    v_block = tl.load(v + place_k, mask=inside_k, other=0.0)
    sum_k = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    sum_v = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    reach = tl.where(causal != 0, keys - queries, keys)
    begin = tl.maximum(tl.program_id(0) * BLOCK_N - reach, 0) // BLOCK_M * BLOCK_M
    for query_head in tl.range(head * group, head * group + group):
        state = (batch * tl.num_programs(1) * group + query_head) * queries
        for start in tl.range(begin, queries, BLOCK_M):
            rows = start + tl.arange(0, BLOCK_M)
            inside = (rows[:, None] < queries) & (dims[None, :] < head_dim)
            place = batch * stride_qb + query_head * stride_qh + rows[:, None].to(tl.int64) * stride_qt + dims[None, :]
            q_block = tl.load(q + place, mask=inside, other=0.0)
            do_block = tl.load(grad + place, mask=inside, other=0.0)
            row_lse = tl.load(lse + state + rows, mask=rows < queries, other=0.0) * LOG2E
            row_delta = tl.load(delta + state + rows, mask=rows < queries, other=0.0)
            scores = tl.dot(q_block, tl.trans(k_block), input_precision="ieee") * (scale * LOG2E)
            seen = (columns[None, :] <= rows[:, None] + reach) & (columns[None, :] < keys) & (rows[:, None] < queries)
            p = tl.where(seen, tl.exp2(scores - row_lse[:, None]), 0.0)
            sum_v = tl.dot(tl.trans(p.to(do_block.dtype)), do_block, sum_v, input_precision="ieee")
            ds = p * (tl.dot(do_block, tl.trans(v_block), input_precision="ieee") - row_delta[:, None])
            sum_k = tl.dot(tl.trans(ds.to(q_block.dtype)), q_block, sum_k, input_precision="ieee")
    tl.store(grad_k + place_k, (sum_k * scale).to(grad_k.dtype.element_ty), mask=inside_k)
    tl.store(grad_v + place_k, sum_v.to(grad_v.dtype.element_ty), mask=inside_k)


@triton.jit
def queries_gradient(
    q, k, v, grad, lse, delta, grad_q,
    stride_qb: tl.int64, stride_qh: tl.int64, stride_qt: tl.int64,
    stride_kb: tl.int64, stride_kh: tl.int64, stride_kt: tl.int64,
    queries: tl.int32, keys: tl.int32, group: tl.int32, causal: tl.int32, head_dim: tl.int32, scale: tl.float32,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dQ of a block of queries. Grid: (blocks of queries, heads, batch)."""
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    start = tl.program_id(0) * BLOCK_M
    rows, dims = start + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    inside = (rows[:, None] < queries) & (dims[None, :] < head_dim)
    place = batch * stride_qb + head * stride_qh + rows[:, None].to(tl.int64) * stride_qt + dims[None, :]
    q_block = tl.load(q + place, mask=inside, other=0.0)
    do_block = tl.load(grad + place, mask=inside, other=0.0)
    state = (batch * tl.num_programs(1) + head) * queries
    row_lse = tl.load(lse + state + rows, mask=rows < queries, other=0.0) * LOG2E
    row_delta = tl.load(delta + state + rows, mask=rows < queries, other=0.0)
    total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    reach = tl.where(causal != 0, keys - queries, keys)
    stop = tl.minimum(keys, tl.maximum(start + BLOCK_M + reach, 0))
    for first in tl.range(0, stop, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        inside_k = (columns[:, None] < keys) & (dims[None, :] < head_dim)
        place_k = (
            batch * stride_kb + (head // group) * stride_kh + columns[:, None].to(tl.int64) * stride_kt + dims[None, :]
        )
        k_block = tl.load(k + place_k, mask=inside_k, other=0.0)
        v_block = tl.load(v + place_k, mask=inside_k, other=0.0)
        scores = tl.dot(q_block, tl.trans(k_block), input_precision="ieee") * (scale * LOG2E)
        seen = (columns[None, :] <= rows[:, None] + reach) & (columns[None, :] < keys)
        p = tl.where(seen, tl.exp2(scores - row_lse[:, None]), 0.0)
        ds = p * (tl.dot(do_block, tl.trans(v_block), input_precision="ieee") - row_delta[:, None])
        total = tl.dot(ds.to(k_block.dtype), k_block, total, input_precision="ieee")
    tl.store(grad_q + place, (total * scale).to(grad_q.dtype.element_ty), mask=inside)
