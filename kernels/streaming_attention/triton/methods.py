"""Triton's kernels as methods of the registry: ``prepare(inputs, threads, comm, options) -> Prepared``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streaming_attention.inputs import Inputs
from streaming_attention.prepared import COMPUTE, Prepared
from streaming_attention.triton import specializations as known
from streaming_attention.triton.attention import SPLIT, prepare_attention, prepare_decode
from streaming_attention.triton.cpu import pool
from streaming_attention.triton.cpu.target import make_target
from streaming_attention.workload import Workload


def prepare_streaming(inputs: Inputs, threads: int, comm, options: Mapping) -> Prepared:
    """Attention of many queries, one rank."""
    return _prepare(inputs, threads, prepare_attention, "triton.prefill")


def prepare_split(inputs: Inputs, threads: int, comm, options: Mapping) -> Prepared:
    """Attention of few queries over many keys, one rank."""
    return _prepare(inputs, threads, prepare_decode, "triton.decode")


def _prepare(inputs: Inputs, threads: int, prepare, name: str) -> Prepared:
    before = pool.get_threads()
    pool.set_threads(threads)
    out = np.empty_like(inputs.q)
    lse = np.empty(inputs.q.shape[:3], np.float32)
    run = prepare(inputs.q, inputs.k, inputs.v, out, lse, causal=inputs.workload.causal, scale=inputs.scale)
    kernel = f"{name} {make_target().name}"
    return Prepared([(COMPUTE, run)], out, kernel, close=lambda: pool.set_threads(before))


def prefill_limits(workload: Workload) -> str | None:
    """None, or why ``triton_streaming`` can't express a workload."""
    return _head_dim(workload)


def decode_limits(workload: Workload) -> str | None:
    """None, or why ``triton_decode`` can't express a workload."""
    rows = workload.queries * workload.heads // workload.kv_heads
    if rows > known.ROWS[-1]:
        return f"triton_decode takes {known.ROWS[-1]} rows a K/V head, the workload has {rows}"
    return _head_dim(workload)


def _head_dim(workload: Workload) -> str | None:
    largest = known.HEAD_BLOCKS[-1]
    return None if workload.head_dim <= largest else f"Triton kernels go to head_dim {largest}, not {workload.head_dim}"


def prefill_workspace(workload: Workload, threads: int) -> int:
    """Bytes beyond Q, K, V and O: the lse, and per thread tiles of scores, keys, values and output."""
    block = known.head_block(min(workload.head_dim, known.HEAD_BLOCKS[-1]))
    tile = 4 * (2 * known.BLOCK_M * (known.BLOCK_N + block) + 2 * known.BLOCK_N * block + 8 * known.BLOCK_M)
    return 4 * workload.batch * workload.heads * workload.queries + threads * tile


def decode_workspace(workload: Workload, threads: int) -> int:
    """Bytes beyond Q, K, V and O: one partial result per part of the keys, and tiles per thread."""
    parts = -(-workload.keys // SPLIT)
    rows = workload.batch * workload.heads * workload.queries
    tile = 4 * known.DECODE_N * (2 * workload.head_dim + 4 * known.ROWS[-1])
    return 4 * rows * parts * (workload.head_dim + 1) + 4 * rows + threads * tile
