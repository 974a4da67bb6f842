"""What the hardware can do, measured beside the kernels: peaks of FMA and bf16 dots from registers, cold reads."""

from __future__ import annotations

import time

import numpy as np
from numba import njit

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.convert import WORDS
from streaming_attention.simd.isa import AVX512_BF16, lanes, select_isa
from streaming_attention.simd.memory import load_i64, prefetch
from streaming_attention.simd.operand import multiply_add
from streaming_attention.simd.vectors import fma, load, splat, store
from streaming_attention.streaming import pool

ROUNDS = 200_000
"""Rounds of 12 independent instructions in one task: 0.3 ms."""
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
    return _peak(select_isa(), _fma_task, 2, threads, rounds)


def _peak(isa, task, flops: int, threads: int, rounds: int) -> float:
    """GFLOP/s of a task with 12 instructions a round, `flops` operations a lane each."""
    job = np.array([rounds], np.int64)
    start = time.perf_counter()
    pool.launch(isa, address_of(task, isa, 3), job.ctypes.data, threads, threads, 64)
    return threads * rounds * 12 * flops * isa.lanes / (time.perf_counter() - start) / 1e9


@njit(nogil=True, error_model="numpy", cache=True)
def _dot_task(isa, job, task, scratch):
    a, b = splat(isa, np.float32(0.5)), splat(isa, np.float32(1e-9))
    c0, c1, c2, c3 = b, a, a + a, a + b
    c4, c5, c6, c7 = c2 + a, c2 + b, c2 + c2, c3 + c3
    c8, c9, c10, c11 = c4 + c2, c4 + b, c4 + c4, c5 + c5
    for _ in range(load_i64(job)):
        c0, c1 = multiply_add(WORDS, a, b, c0), multiply_add(WORDS, a, b, c1)
        c2, c3 = multiply_add(WORDS, a, b, c2), multiply_add(WORDS, a, b, c3)
        c4, c5 = multiply_add(WORDS, a, b, c4), multiply_add(WORDS, a, b, c5)
        c6, c7 = multiply_add(WORDS, a, b, c6), multiply_add(WORDS, a, b, c7)
        c8, c9 = multiply_add(WORDS, a, b, c8), multiply_add(WORDS, a, b, c9)
        c10, c11 = multiply_add(WORDS, a, b, c10), multiply_add(WORDS, a, b, c11)
    store(c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + c8 + c9 + c10 + c11, scratch)


def dot_peak(threads: int = 1, rounds: int = ROUNDS) -> float:
    """GFLOP/s of register-only dot products of bfloat16 pairs; AVX512_BF16 only."""
    return _peak(AVX512_BF16, _dot_task, 4, threads, rounds)


def read_seconds(arrays, threads: int = 1) -> float:
    """Seconds to read arrays once (contiguous, sizes a multiple of 1 KiB)."""
    isa = select_isa()
    start = time.perf_counter()
    for array in arrays:
        job = np.array([array.ctypes.data, array.nbytes], np.int64)
        pool.launch(isa, address_of(_read_task, isa, 3), job.ctypes.data, -(-array.nbytes // CHUNK), threads, 64)
    return time.perf_counter() - start
