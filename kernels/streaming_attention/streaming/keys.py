"""Where the keys of a call are: contiguous or in pages, and which of them a query sees."""

from __future__ import annotations

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.convert import BF16, FP16, FP32, INT8, load_as_f32, load_scalar_as_f32
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_f32, load_i32, prefetch, store_f32
from streaming_attention.simd.vectors import LINE, splat, store


@jit
def keys_of(job, batch):
    """Keys of a batch."""
    return job.keys if job.lengths == 0 else load_i32(job.lengths + 4 * batch)


@jit
def seen_by(job, keys, query):
    """First key that a query sees and the one after its last; equal where it sees none."""
    at = query + job.offset + keys - job.keys
    first = min(max(at - job.left, 0), keys)
    return first, max(min(at + job.right + 1, keys), first)


@jit
def k_address(job, head, key):
    """Address of a row of K."""
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    if job.table != 0:
        batch, key = load_i32(job.table + batch * job.table_stride + 4 * (key // job.page)), key % job.page
    return job.k + batch * job.k_batch + kv_head * job.k_head + key * job.k_token


@jit
def v_address(job, head, key):
    """Address of a row of V."""
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    if job.table != 0:
        batch, key = load_i32(job.table + batch * job.table_stride + 4 * (key // job.page)), key % job.page
    return job.v + batch * job.v_batch + kv_head * job.v_head + key * job.v_token


@jit
def run_length(job, key, count):
    """How many of `count` keys from `key` on lie evenly spaced in memory."""
    return count if job.table == 0 else min(count, job.page - key % job.page)


@jit
def is_direct(isa, job, dim_stride):
    """Whether rows can be read in place as whole fp32 vectors."""
    return job.storage == FP32 and dim_stride == 4 and job.head_dim % lanes(isa) == 0


@jit
def widen_rows(isa, job, source, token, dim, ahead, count, target, width, scales):
    """Copy `count` rows as fp32, padded with zeros to `width`; prefetch the same rows `ahead` bytes on.

    ``scales`` is the address of the rows' factors (fp32), or 0 for none.
    """
    whole = job.head_dim - job.head_dim % lanes(isa) if dim == element_size(job.storage) else 0
    for row in range(count):
        at, to = source + row * token, target + 4 * width * row
        for line in range(0, job.head_dim * dim, LINE):
            prefetch(at + ahead + line)
        scale = np.float32(1) if scales == 0 else load_f32(scales + 4 * row)
        _widen_vectors(isa, job.storage, at, whole, to, scale)
        for c in range(whole, job.head_dim):
            store_f32(_scalar(job.storage, at + c * dim) * scale, to + 4 * c)
        for c in range(job.head_dim, width):
            store_f32(np.float32(0), to + 4 * c)


@jit
def element_size(storage):
    return 4 if storage == FP32 else 1 if storage == INT8 else 2


@jit
def _widen_vectors(isa, storage, source, count, target, scale):
    step = lanes(isa)
    if storage == BF16:
        for c in range(0, count, step):
            store(load_as_f32(isa, BF16, source + 2 * c), target + 4 * c)
    elif storage == FP16:
        for c in range(0, count, step):
            store(load_as_f32(isa, FP16, source + 2 * c), target + 4 * c)
    elif storage == INT8:
        for c in range(0, count, step):
            store(load_as_f32(isa, INT8, source + c) * splat(isa, scale), target + 4 * c)
    else:
        for c in range(0, count, step):
            store(load_as_f32(isa, FP32, source + 4 * c), target + 4 * c)


@jit
def _scalar(storage, address):
    if storage == BF16:
        return load_scalar_as_f32(BF16, address)
    if storage == FP16:
        return load_scalar_as_f32(FP16, address)
    if storage == INT8:
        return load_scalar_as_f32(INT8, address)
    return load_scalar_as_f32(FP32, address)
