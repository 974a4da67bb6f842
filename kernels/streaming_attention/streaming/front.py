"""From arrays to a launch: fills the job record, cuts it into tasks, picks the compiled kernel."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import types

from streaming_attention.simd.isa import Isa, select_isa
from streaming_attention.streaming import pool, prefill
from streaming_attention.streaming.job import JOB

UNBOUNDED = 2**40
"""A window side that never ends."""

STRIPS = 4
"""Strips per task at most: they read each block of K and V from the cache of the one before."""

AXES = {"bhtd": (0, 1, 2, 3), "bthd": (0, 2, 1, 3)}
"""Axes of (batch, head, token, dim) by layout."""


@cache
def kernel_address(kernel, isa: Isa) -> int:
    """Address of a compiled ``kernel(isa, job, task, scratch)``; compiles it, or loads it from Numba's cache."""
    from numba import typeof

    compiled = kernel.get_compile_result(types.void(typeof(isa), types.int64, types.int64, types.int64))
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


def run_prefill(q, k, v, out, lse=None, *, causal=False, scale=None, window=(None, None), threads=1, layout="bhtd", isa=None):
    """Attention of every query over all its keys, into `out`.

    Parameters
    ----------
    q, out : ndarray, float32, (batch, heads, queries, head_dim)
        Any strides; with ``layout="bthd"``, (batch, queries, heads, head_dim).
    k, v : ndarray, float32, (batch, kv_heads, keys, head_dim)
        Likewise; ``heads`` is a multiple of ``kv_heads``.
    lse : ndarray, float32, (batch, heads, queries), C-contiguous, optional
        Receives the natural log-sum-exp of each row.
    causal : bool
        Query i sees the keys j <= i + keys - queries.
    scale : float, optional
        ``head_dim ** -0.5`` unless given.
    window : (int or None, int or None)
        Keys seen before and after a query's own place; None: all.
    threads : int
    isa : Isa, optional
        The best of this CPU unless given.
    """
    isa = isa or select_isa()
    b, h, t, d = AXES[layout]
    qs, ks, vs, os = q.strides, k.strides, v.strides, out.strides
    batch, heads, queries, head_dim = q.shape[b], q.shape[h], q.shape[t], q.shape[d]
    kv_heads, keys = k.shape[h], k.shape[t]
    left, right = window
    if causal:
        right = 0
    rows = queries * (heads // kv_heads)
    strips = min(STRIPS, max(1, batch * kv_heads * rows // (isa.width * threads * 4)))
    tasks = batch * kv_heads * -(-rows // (strips * isa.width))
    job = np.empty(1, JOB)
    job[0] = (
        *(q.ctypes.data, k.ctypes.data, v.ctypes.data, out.ctypes.data, 0 if lse is None else lse.ctypes.data),
        *(qs[b], qs[h], qs[t], qs[d], ks[b], ks[h], ks[t], ks[d]),
        *(vs[b], vs[h], vs[t], vs[d], os[b], os[h], os[t], os[d]),
        *(batch, heads, kv_heads, queries, keys, head_dim, keys - queries),
        *(UNBOUNDED if left is None else left, UNBOUNDED if right is None else right, strips),
        (head_dim**-0.5 if scale is None else scale) * math.log2(math.e),
    )
    address = kernel_address(prefill.prefill_task, isa)
    pool.launch(isa, address, job.ctypes.data, tasks, threads, prefill.scratch_bytes(isa, head_dim, strips))
