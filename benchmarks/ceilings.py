"""What the hardware can do, measured beside the kernels: peaks of FMA and bf16 dots from registers, cold reads."""

from __future__ import annotations

import csv
import time
from functools import cache

import numpy as np
from numba import njit

from streaming_attention.bandwidth import peak
from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.isa import lanes, select_isa
from streaming_attention.simd.memory import load_i64, prefetch
from streaming_attention.simd.vectors import load, splat, store
from streaming_attention.streaming import pool

CHUNK = 1 << 20
"""Bytes that one task of :func:`read` takes."""


@njit(nogil=True, error_model="numpy", cache=True)
def _read_task(isa, job, task, scratch):
    step = 4 * lanes(isa)
    address, size = load_i64(job), load_i64(job + 8)
    first = task * CHUNK
    stop = min(first + CHUNK, size)
    s0 = splat(isa, np.float32(0))
    s1, s2, s3 = s0, s0, s0
    for at in range(first, stop, 4 * step):
        p = address + at
        for line in range(0, 4 * step, 64):
            prefetch(p + line + 4096)
        s0, s1 = s0 + load(isa, p), s1 + load(isa, p + step)
        s2, s3 = s2 + load(isa, p + 2 * step), s3 + load(isa, p + 3 * step)
    store(s0 + s1 + s2 + s3, scratch)


def fma_peak(threads: int = 1) -> float:
    """GFLOP/s of multiply-adds in registers."""
    return _peak("fma_fp32", threads)


def dot_peak(threads: int = 1) -> float:
    """GFLOP/s of dot products of bfloat16 pairs in registers; AVX512_BF16 only."""
    return _peak("dot_bf16", threads)


@cache
def _prepare(name: str, threads: int):
    return peak.prepare_peak(name, threads)


def _peak(name: str, threads: int) -> float:
    call = _prepare(name, threads)
    start = time.perf_counter()
    call()
    return peak.flops_per_call(name, threads) / (time.perf_counter() - start) / 1e9


def read_seconds(arrays, threads: int = 1) -> float:
    """Seconds to read arrays once (contiguous, sizes a multiple of 1 KiB)."""
    isa = select_isa()
    start = time.perf_counter()
    for array in arrays:
        job = np.array([array.ctypes.data, array.nbytes], np.int64)
        pool.launch(isa, address_of(_read_task, isa, 3), job.ctypes.data, -(-array.nbytes // CHUNK), threads, 64)
    return time.perf_counter() - start


def append_rows(path: str | None, rows: list[tuple]) -> None:
    """Add rows to a CSV file, if one is wanted."""
    if path:
        with open(path, "a", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)
