"""From arrays to the launch of the backward pass."""

from __future__ import annotations

import struct

import numpy as np

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.convert import BF16, FORMATS, format_of
from streaming_attention.simd.isa import choose_isa
from streaming_attention.streaming import pool
from streaming_attention.streaming.backward import BLOCK, backward_scratch_bytes, backward_task, backward_words
from streaming_attention.streaming.backward_job import BACKWARD_JOB, MATRICES
from streaming_attention.streaming.backward_rows import STATE, strips_of
from streaming_attention.streaming.front import AXES, UNBOUNDED
from streaming_attention.streaming.stage import as_matrix, as_words, empty_matrix, from_matrix, is_matrix

CHUNK_BYTES = 5 << 19
"""Memory of a task's K, V, dK and dV at most. Fewer keys are more passes over the queries and dQ: 1 MiB took 2 to 4%
longer, 4 MiB as long, 8 MiB up to 15% longer (Zen 5, 1 MiB of second-level cache, d = 128)."""
TASKS = 4
"""Tasks for each thread at least where heads can't be shared out evenly: causal ones differ in length."""

_PACK = struct.Struct(f"{len(BACKWARD_JOB.names) - 1}qd")


def run_backward(
    dout,
    q,
    k,
    v,
    out,
    lse,
    dq,
    dk,
    dv,
    *,
    causal=False,
    scale=None,
    window=(None, None),
    offset=None,
    threads=1,
    layout="bhtd",
    isa=None,
):
    """Gradients of attention, into `dq`, `dk` and `dv`.

    Parameters
    ----------
    dout, q, out, dq : ndarray, (batch, heads, queries, head_dim)
        float32, float16, or uint16 holding bfloat16; any strides; with ``layout="bthd"``, (batch, queries, heads,
        head_dim).
    k, v, dk, dv : ndarray, (batch, kv_heads, keys, head_dim)
        Likewise.
    lse : ndarray, float32, (batch, heads, queries), C-contiguous
    causal, scale, window, offset, threads, isa
        As of :func:`.front.run_prefill`, by which `out` and `lse` were made.

    Notes
    -----
    Needs, beyond the arrays, Q and dO transposed, a copy in fp32 of each array whose rows aren't fp32 in whole vectors,
    and a chunk of dK and dV a thread: O(tokens x head_dim), O(threads x :data:`CHUNK_BYTES`).
    """
    axes = AXES[layout]
    given = [array.transpose(axes) for array in (q, k, v, out, dout)]
    wanted = [array.transpose(axes) for array in (dq, dk, dv)]
    isa, kernel = choose_kernel([array.dtype for array in given], isa)
    as_rows = as_words if kernel is backward_words else as_matrix
    matrices = [as_rows(array, isa, threads) for array in given]
    # A tile writes all its rows, so dQ needs whole tiles of them.
    sums = [
        array if is_matrix(array, isa) and (i or array.shape[2] % isa.rows == 0) else empty_matrix(array.shape, isa)
        for i, array in enumerate(wanted)
    ]
    job = _describe(dict(zip(MATRICES, [*matrices, *sums], strict=True)), given[0].shape, given[1].shape, lse)
    job["columns"] = -(-job["head_dim"] // isa.lanes) * isa.lanes
    job["chunk"] = chunk_of(job["keys"], job["columns"], job["batch"] * job["kv_heads"], threads)
    _set_view(job, causal, scale, window, offset)
    _launch(isa, kernel, job, threads)
    for matrix, array in zip(sums, wanted, strict=True):
        from_matrix(matrix, array, isa, threads)


def choose_kernel(dtypes, isa=None):
    """The instruction set and the kernel for arrays of these dtypes; the best of this CPU unless `isa` is given."""
    all_bf16 = all(FORMATS[format_of(dtype)] == BF16 for dtype in dtypes)
    isa = choose_isa(all_bf16, isa)
    return isa, backward_words if all_bf16 and isa.has_bf16_dot else backward_task


def chunk_of(keys: int, columns: int, heads: int, threads: int) -> int:
    """Keys of a task, whole blocks; `heads` are K/V heads of all batches. No bit of a result depends on it."""
    blocks = max(1, -(-keys // BLOCK))
    most = max(1, CHUNK_BYTES // (16 * columns * BLOCK))
    wanted = 1 if heads % threads == 0 else -(-TASKS * threads // heads)
    return BLOCK * -(-blocks // min(blocks, max(wanted, -(-blocks // most))))


def _describe(matrices: dict, q_shape, k_shape, lse) -> dict:
    """Addresses, strides and sizes; the rest 0."""
    job = dict.fromkeys(BACKWARD_JOB.names, 0)
    for name, matrix in matrices.items():
        job[name] = matrix.ctypes.data
        job[f"{name}_batch"], job[f"{name}_head"], job[f"{name}_token"], _ = matrix.strides
    job["lse"] = lse.ctypes.data
    job["batch"], job["heads"], job["queries"], job["head_dim"] = q_shape
    job["kv_heads"], job["keys"] = k_shape[1:3]
    job["lane"] = 4
    return job


def _set_view(job: dict, causal, scale, window, offset) -> None:
    left, right = window
    job["offset"] = job["keys"] - job["queries"] if offset is None else offset
    job["left"] = UNBOUNDED if left is None else left
    job["right"] = 0 if causal else UNBOUNDED if right is None else right
    job["scale"] = job["head_dim"] ** -0.5 if scale is None else scale


def _launch(isa, kernel, job: dict, threads: int) -> None:
    """Chunks of keys, one of each head where there are none: it sets dQ to 0."""
    strips = job["batch"] * job["heads"] * strips_of.py_func(job["queries"], isa.width)
    tasks = job["batch"] * job["kv_heads"] * max(1, -(-job["keys"] // job["chunk"]))
    panel = job["columns"] * isa.width
    panels = np.empty(2 * strips * panel, np.float32)
    pairs = np.empty((2, strips * panel // 2 if kernel is backward_words else 0), np.float32)
    state = np.empty(strips * STATE * isa.width, np.float32)
    progress = np.zeros(tasks, np.int64)
    for name, array in (("panels", panels), ("state", state), ("progress", progress)):
        job[name] = array.ctypes.data
    job["q_pairs"], job["do_pairs"] = (array.ctypes.data for array in pairs)
    record = np.frombuffer(_PACK.pack(*job.values()), np.uint8)
    scratch = backward_scratch_bytes(isa, job["columns"], job["chunk"])
    pool.launch(isa, address_of(kernel, isa, 3), record.ctypes.data, tasks, threads, scratch)
