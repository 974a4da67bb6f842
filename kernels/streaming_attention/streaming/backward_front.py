"""From arrays to the launches of the backward pass."""

from __future__ import annotations

import struct

import numpy as np

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming import pool
from streaming_attention.streaming.backward import BLOCK, backward_scratch_bytes, backward_task
from streaming_attention.streaming.backward_job import BACKWARD_JOB, MATRICES
from streaming_attention.streaming.backward_rows import STATE, rows_scratch_bytes, rows_task, strips_of
from streaming_attention.streaming.front import AXES, UNBOUNDED
from streaming_attention.streaming.stage import as_matrix, empty_matrix, from_matrix, is_matrix

CHUNK_BYTES = 1 << 20
"""Memory of a task's K, V, dK and dV. Fewer keys are more passes over the queries and dQ: half of this took 4% longer,
twice as much 3% less (Zen 5, 1 MiB of second-level cache, d = 128), but is half the tasks."""
CHUNKS = 4
"""Tasks that the keys of a head are cut into at least, where they are enough."""

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
    Needs, beyond the arrays, Q and dO transposed, and a copy in fp32 of each array whose rows aren't fp32 in whole
    vectors: O(tokens x head_dim).
    """
    isa = isa or select_isa()
    axes = AXES[layout]
    given = [array.transpose(axes) for array in (q, k, v, out, dout)]
    wanted = [array.transpose(axes) for array in (dq, dk, dv)]
    matrices = [as_matrix(array, isa, threads) for array in given]
    # A tile writes all its rows, so dQ needs whole tiles of them.
    sums = [
        array if is_matrix(array, isa) and (i or array.shape[2] % isa.rows == 0) else empty_matrix(array.shape, isa)
        for i, array in enumerate(wanted)
    ]
    job = _describe(dict(zip(MATRICES, [*matrices, *sums], strict=True)), given[0].shape, given[1].shape, lse)
    _set_view(job, causal, scale, window, offset)
    _launch(isa, job, threads)
    for matrix, array in zip(sums, wanted, strict=True):
        from_matrix(matrix, array, isa, threads)


def chunk_of(keys: int, columns: int) -> int:
    """Keys of a task, whole blocks. It depends on shapes alone, and so do the bits of the result."""
    blocks = min(CHUNK_BYTES // (16 * columns * BLOCK), -(-keys // (CHUNKS * BLOCK)))
    return BLOCK * max(1, blocks)


def _describe(matrices: dict, q_shape, k_shape, lse) -> dict:
    """Addresses, strides and sizes; the rest 0."""
    job = dict.fromkeys(BACKWARD_JOB.names, 0)
    for name, matrix in matrices.items():
        job[name] = matrix.ctypes.data
        job[f"{name}_batch"], job[f"{name}_head"], job[f"{name}_token"], _ = matrix.strides
    job["lse"] = lse.ctypes.data
    job["batch"], job["heads"], job["queries"], job["head_dim"] = q_shape
    job["kv_heads"], job["keys"] = k_shape[1:3]
    job["columns"] = matrices["q"].shape[3]
    job["chunk"], job["lane"] = chunk_of(job["keys"], job["columns"]), 4
    return job


def _set_view(job: dict, causal, scale, window, offset) -> None:
    left, right = window
    job["offset"] = job["keys"] - job["queries"] if offset is None else offset
    job["left"] = UNBOUNDED if left is None else left
    job["right"] = 0 if causal else UNBOUNDED if right is None else right
    job["scale"] = job["head_dim"] ** -0.5 if scale is None else scale


def _launch(isa, job: dict, threads: int) -> None:
    """Strips of queries first, then chunks of keys."""
    strips = job["batch"] * job["heads"] * strips_of.py_func(job["queries"], isa.width)
    chunks = job["batch"] * job["kv_heads"] * -(-job["keys"] // job["chunk"])
    panels = np.empty(strips * 2 * job["columns"] * isa.width, np.float32)
    state = np.empty(strips * STATE * isa.width, np.float32)
    progress = np.zeros(chunks, np.int64)
    job["panels"], job["state"], job["progress"] = (array.ctypes.data for array in (panels, state, progress))
    record = np.frombuffer(_PACK.pack(*job.values()), np.uint8)
    for kernel, tasks, scratch in (
        (rows_task, strips, rows_scratch_bytes(isa, job["columns"])),
        (backward_task, chunks, backward_scratch_bytes(isa, job["columns"], job["chunk"])),
    ):
        pool.launch(isa, address_of(kernel, isa, 3), record.ctypes.data, tasks, threads, scratch)
