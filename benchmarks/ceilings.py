"""What the hardware can do, measured beside the kernels: peaks of FMA and bf16 dots from registers, cold reads."""

from __future__ import annotations

import time

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.bf16 import emit_dot
from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.convert import FP32, WORDS
from streaming_attention.simd.isa import AVX512_BF16, lanes, select_isa
from streaming_attention.simd.memory import load_i64, prefetch
from streaming_attention.simd.vectors import I64, emit_constant, emit_fma, emit_store, load, splat, store
from streaming_attention.streaming import pool

ROUNDS = 1_000_000
"""Rounds in one task of :func:`spin`: 3 ms; rates of a tenth of that vary by a tenth."""
CHUNK = 1 << 20
"""Bytes that one task of :func:`read` takes."""


@intrinsic
def spin(typingctx, isa, tile, rounds, target):
    """`rounds` rounds of multiply-adds in registers, each with sums of its own; they are stored at `target` in the end.

    As many sums as a register tile has. With 12 FMA reaches its peak, dots of bfloat16 only 0.9 of what they reach
    with 16 to 28, because their latency is longer (Zen 5).
    """
    chains = isa.isa.rows * isa.isa.vectors

    def codegen(context, builder, _signature, args):
        multiply_add = emit_dot if tile.storage == WORDS else emit_fma
        factor = emit_constant(isa.vector, 0.5)
        before, body, done = builder.basic_block, *(builder.append_basic_block(name) for name in ("spin", "spun"))
        builder.branch(body)
        builder.position_at_end(body)
        left, sums = builder.phi(I64), [builder.phi(isa.vector) for _ in range(chains)]
        added = [multiply_add(builder, factor, factor, value) for value in sums]
        rest = builder.sub(left, I64(1))
        for phi, first, later in zip((left, *sums), (args[2], *[factor] * chains), (rest, *added), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, body)
        builder.cbranch(builder.icmp_signed(">", rest, I64(0)), body, done)
        builder.position_at_end(done)
        for place, value in enumerate(added):
            emit_store(builder, value, builder.add(args[3], I64(4 * isa.isa.lanes * place)))
        return context.get_dummy_value()

    return types.void(isa, tile, types.int64, types.int64), codegen


@njit(nogil=True, error_model="numpy", cache=True)
def _fma_task(isa, job, task, scratch):
    spin(isa, FP32, load_i64(job), scratch)


@njit(nogil=True, error_model="numpy", cache=True)
def _dot_task(isa, job, task, scratch):
    spin(isa, WORDS, load_i64(job), scratch)


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
    """GFLOP/s of a task whose instructions do `flops` operations a lane."""
    job = np.array([rounds], np.int64)
    start = time.perf_counter()
    pool.launch(isa, address_of(task, isa, 3), job.ctypes.data, threads, threads, 64 * isa.rows * isa.vectors)
    return threads * rounds * isa.rows * isa.width * flops / (time.perf_counter() - start) / 1e9


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
