"""From arrays to a launch: fills the job record, cuts it into tasks, picks the compiled kernel."""

from __future__ import annotations

import math
import struct

import numpy as np

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming import decode, pool, prefill
from streaming_attention.streaming.job import FACTORS, JOB

UNBOUNDED = 2**40
"""A window side that never ends."""

STRIPS = 4
"""Strips per task at most: they read each block of K and V from the cache of the one before."""

AXES = {"bhtd": (0, 1, 2, 3), "bthd": (0, 2, 1, 3)}
"""Axes of (batch, head, token, dim) by layout."""


def run_prefill(
    q,
    k,
    v,
    out,
    lse=None,
    *,
    causal=False,
    scale=None,
    window=(None, None),
    offset=None,
    threads=1,
    layout="bhtd",
    isa=None,
    block=prefill.BLOCK,
):
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
        Query i sees the keys j <= i + offset.
    offset : int, optional
        ``keys - queries`` unless given, so that the last query stands at the last key; otherwise where `k` and `v`
        are a slice of the keys.
    scale : float, optional
        ``head_dim ** -0.5`` unless given.
    window : (int or None, int or None)
        Keys seen before and after a query's own place; None: all.
    threads : int
    isa : Isa, optional
        The best of this CPU unless given.
    block : int
        Keys of a step of the online softmax; sums, and so bits, depend on it.
    """
    isa = isa or select_isa()
    job = _describe(q, k, v, out, lse, causal, scale, window, offset, AXES[layout], AXES[layout])
    job["block"] = block
    rows = job["queries"] * (job["heads"] // job["kv_heads"])
    heads = job["batch"] * job["kv_heads"]
    job["strips"] = strips = min(STRIPS, max(1, heads * rows // (isa.width * threads * 4)))
    tasks = heads * -(-rows // (strips * isa.width))
    scratch = prefill.scratch_bytes(isa, job["head_dim"], strips, block)
    _launch(isa, prefill.prefill_task, job, tasks, threads, scratch)


def run_decode(
    q,
    k,
    v,
    out,
    lse=None,
    *,
    causal=True,
    scale=None,
    window=(None, None),
    offset=None,
    threads=1,
    layout="bhtd",
    isa=None,
    k_scale=None,
    v_scale=None,
    block_table=None,
    seqlens=None,
    kv_layout=None,
):
    """Attention of few queries over many keys, into `out`.

    Parameters are those of :func:`run_prefill`, and

    Parameters
    ----------
    k, v : ndarray, float32, float16, int8, or uint16 holding bfloat16
        With `block_table`: (pages, page_size, kv_heads, head_dim), ``page_size`` a multiple of 16; with
        ``kv_layout="bhtd"``, (pages, kv_heads, page_size, head_dim).
    k_scale, v_scale : ndarray, float32, (batch, kv_heads, keys), contiguous, optional
        Factors of the rows of int8 K and V.
    block_table : ndarray, int32, (batch, pages of a sequence), optional
    seqlens : ndarray, int32, (batch,), optional
        Keys of each batch; all of them unless given.
    """
    isa = isa or select_isa()
    kv_axes = AXES[kv_layout or (layout if block_table is None else "bthd")]
    job = _describe(q, k, v, out, lse, causal, scale, window, offset, AXES[layout], kv_axes, block_table)
    heads, rows = job["batch"] * job["kv_heads"], job["queries"] * (job["heads"] // job["kv_heads"])
    if job["page"] % decode.STEP:
        raise ValueError(f"block_table: pages hold {job['page']} keys; allowed: multiples of {decode.STEP}")
    if seqlens is not None:
        job["lengths"] = seqlens.ctypes.data
    if k_scale is not None:
        job["k_scale"], job["v_scale"] = k_scale.ctypes.data, v_scale.ctypes.data
    job["splits"] = splits = max(1, -(-job["keys"] // decode.SPLIT))
    if splits > 1:
        width = -(-job["head_dim"] // isa.lanes) * isa.lanes
        partial = np.empty(heads * splits * rows * (width + 2), np.float32)
        counters = np.zeros(heads, np.int64)
        job["partial"], job["counters"] = partial.ctypes.data, counters.ctypes.data
    scratch = decode.scratch_bytes(isa, job["head_dim"], rows)
    _launch(isa, DECODE[k.dtype.char], job, heads * splits, threads, scratch)


DECODE = {"f": decode.decode_fp32, "H": decode.decode_bf16, "e": decode.decode_fp16, "b": decode.decode_int8}
"""Kernels by the character of K's dtype; uint16 holds bfloat16."""

_PACK = struct.Struct(f"{len(JOB.names) - FACTORS}q{FACTORS}d")


def _describe(q, k, v, out, lse, causal, scale, window, offset, axes, kv_axes, block_table=None) -> dict:
    """The fields of a job that every kernel needs, the others 0."""
    b, h, t, d = axes
    job = dict.fromkeys(JOB.names, 0)
    for name, array in (("q", q), ("k", k), ("v", v), ("o", out)):
        strides = array.strides
        job[name] = array.ctypes.data
        for axis, place in zip(("batch", "head", "token", "dim"), kv_axes if name in "kv" else axes, strict=True):
            job[f"{name}_{axis}"] = strides[place]
    job["lse"] = 0 if lse is None else lse.ctypes.data
    job["batch"], job["heads"], job["queries"], job["head_dim"] = q.shape[b], q.shape[h], q.shape[t], q.shape[d]
    job["kv_heads"], job["keys"] = k.shape[kv_axes[1]], k.shape[kv_axes[2]]
    if block_table is not None:
        job["table"], job["table_stride"], job["page"] = block_table.ctypes.data, block_table.strides[0], job["keys"]
        job["keys"] *= block_table.shape[1]
    left, right = window
    job["offset"] = job["keys"] - job["queries"] if offset is None else offset
    job["left"] = UNBOUNDED if left is None else left
    job["right"] = 0 if causal else UNBOUNDED if right is None else right
    job["scale"] = (job["head_dim"] ** -0.5 if scale is None else scale) * math.log2(math.e)
    return job


def _launch(isa, kernel, job: dict, tasks: int, threads: int, scratch: int) -> None:
    record = np.empty(_PACK.size, np.uint8)
    _PACK.pack_into(record, 0, *job.values())
    pool.launch(isa, address_of(kernel, isa, 3), record.ctypes.data, tasks, threads, scratch)
