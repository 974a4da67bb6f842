"""What the hardware can do, measured beside the kernels: FMA peak from registers, cold reads from memory."""

from __future__ import annotations

import time

import numpy as np
from numba import njit

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.isa import lanes, select_isa
from streaming_attention.simd.memory import load_i64, prefetch
from streaming_attention.simd.vectors import fma, load, splat, store
from streaming_attention.streaming import pool

ROUNDS = 200_000
"""Rounds of 12 independent FMAs in one task: 0.3 ms."""
CHUNK = 1 << 20
"""Bytes that one task of :func:`read` takes."""


@njit(nogil=True, error_model="numpy", cache=True)
def _fma_task(isa, job, task, scratch):
    a, b = splat(isa, np.float32(0.999)), splat(isa, np.float32(1e-9))
    c0, c1, c2, c3 = b, a, a + a, a + b
    c4, c5, c6, c7 = c2 + a, c2 + b, c2 + c2, c3 + c3
    c8, c9, c10, c11 = c4 + c2, c4 + b, c4 + c4, c5 + c5
    for _ in range(load_i64(job)):
        c0, c1, c2, c3 = fma(c0, a, b), fma(c1, a, b), fma(c2, a, b), fma(c3, a, b)
        c4, c5, c6, c7 = fma(c4, a, b), fma(c5, a, b), fma(c6, a, b), fma(c7, a, b)
        c8, c9, c10, c11 = fma(c8, a, b), fma(c9, a, b), fma(c10, a, b), fma(c11, a, b)
    store(c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11, scratch)


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


def fma_peak(threads: int = 1, rounds: int = ROUNDS) -> float:
    """GFLOP/s of register-only fused multiply-adds."""
    isa = select_isa()
    job = np.array([rounds], np.int64)
    start = time.perf_counter()
    pool.launch(isa, address_of(_fma_task, isa, 3), job.ctypes.data, threads, threads, 64)
    return threads * rounds * 12 * 2 * isa.lanes / (time.perf_counter() - start) / 1e9


def read_seconds(arrays, threads: int = 1) -> float:
    """Seconds to read arrays once (contiguous, sizes a multiple of 1 KiB)."""
    isa = select_isa()
    start = time.perf_counter()
    for array in arrays:
        job = np.array([array.ctypes.data, array.nbytes], np.int64)
        pool.launch(isa, address_of(_read_task, isa, 3), job.ctypes.data, -(-array.nbytes // CHUNK), threads, 64)
    return time.perf_counter() - start
