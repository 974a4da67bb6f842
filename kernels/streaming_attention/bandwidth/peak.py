"""The peak of the arithmetic: multiply-adds in registers and nothing else, which no kernel can exceed.

Every thread runs a loop with as many independent sums as a register tile of the streaming kernels has, so that neither
latency nor memory counts. With 12 sums FMA reaches its peak; dots of bfloat16 reach 0.9 of what they do with 16 to 28,
because their latency is longer (Zen 5).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.bandwidth.ceiling import Ceiling
from streaming_attention.simd.bf16 import emit_dot
from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.convert import FP32, WORDS
from streaming_attention.simd.isa import AVX512_BF16, Isa, select_isa
from streaming_attention.simd.memory import load_i64
from streaming_attention.simd.vectors import I64, emit_constant, emit_fma, emit_store
from streaming_attention.streaming import pool

ROUNDS = 1_000_000
"""Rounds of one call, each one multiply-add for every sum: 3 ms; rates of a tenth of that vary by a tenth."""
FACTOR = 0.5
"""Both factors, and what the sums start with. Its square is added each round, exactly, until 2^24 of them."""


@intrinsic
def spin(typingctx, isa, tile, rounds, target):
    """`rounds` rounds of multiply-adds, each with sums of its own, which are stored at `target` in the end.

    As words of bfloat16 the factor is (0, 0.5) twice over, so that a dot product adds its square too.
    """
    chains = isa.isa.rows * isa.isa.vectors

    def codegen(context, builder, _signature, args):
        multiply_add = emit_dot if tile.storage == WORDS else emit_fma
        factor = emit_constant(isa.vector, FACTOR)
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
    spin(isa, FP32, load_i64(job), load_i64(job + 8) + task * load_i64(job + 16))


@njit(nogil=True, error_model="numpy", cache=True)
def _dot_task(isa, job, task, scratch):
    spin(isa, WORDS, load_i64(job), load_i64(job + 8) + task * load_i64(job + 16))


def available_peaks() -> list[str]:
    """``fma_fp32``, and ``dot_bf16`` where the CPU multiplies pairs of bfloat16."""
    return ["fma_fp32"] if AVX512_BF16.missing() else ["fma_fp32", "dot_bf16"]


def flops_per_call(name: str, threads: int, rounds: int = ROUNDS) -> int:
    """FLOPs of a call: two for each lane and round, four where a lane takes a pair."""
    isa, _, flops = _peak(name)
    return flops * threads * rounds * _sums(isa)


def prepare_peak(name: str, threads: int, rounds: int = ROUNDS) -> Ceiling:
    """Multiply-adds in registers on every thread at once.

    Parameters
    ----------
    name : str
        One of :func:`available_peaks`.
    threads, rounds : int
        ``rounds`` at most 2^24, until which the sums are exact.

    Returns
    -------
    Ceiling
        Its ``error`` is the largest relative error of any sum.
    """
    if not 1 <= rounds <= 2**24:
        raise ValueError(f"rounds: {rounds} is not from 1 to {2**24}")
    isa, kernel, _ = _peak(name)
    sums = np.full((threads, _sums(isa)), np.nan, np.float32)
    job = np.array([rounds, sums.ctypes.data, sums.strides[0]], np.int64)
    code = address_of(kernel, isa, 3)

    def run():
        pool.launch(isa, code, job.ctypes.data, threads, threads, 64)

    def error():
        right = FACTOR + FACTOR**2 * rounds
        return float(np.abs(sums / right - 1).max())

    return Ceiling(run, error, tolerance=0.0)


def _peak(name: str) -> tuple[Isa, object, int]:
    """Instruction set, kernel and FLOPs of a lane."""
    if name not in available_peaks():
        raise ValueError(f"name: {name!r} is not one of {', '.join(available_peaks())}")
    return (select_isa(), _fma_task, 2) if name == "fma_fp32" else (AVX512_BF16, _dot_task, 4)


def _sums(isa: Isa) -> int:
    return isa.rows * isa.vectors * isa.lanes
