"""Kernels in Triton beside the package's own, torch, a cold read and BLAS, interleaved; medians of ratios.

    python benchmarks/triton_kernels.py [--threads N] [--rounds N] [--only WORD]

Attention runs from the shipped TTIR; the matrix product needs Triton (pip install .[triton]). Each round runs every
contender once; a ratio is between neighbours of one round.
"""

from __future__ import annotations

import os

from streaming_attention.machine.variables import settle_variables

settle_variables(os.cpu_count())  # as for a job, before the libraries read them

import argparse
import importlib.util
import time
from functools import partial

import numpy as np
from ceilings import dot_peak, fma_peak, read_seconds
from prefill import draw, seconds, torch_sdpa

from streaming_attention.simd.isa import AVX512_BF16
from streaming_attention.streaming.front import prepare_decode as prepare_streaming_decode
from streaming_attention.streaming.front import run_prefill
from streaming_attention.triton import specializations as known
from streaming_attention.triton.attention import prepare_attention
from streaming_attention.triton.cpu.kernel import Kernel, compile_ttir
from streaming_attention.triton.cpu.store import load_or_compile
from streaming_attention.triton.cpu.target import make_target
from streaming_attention.triton.decoding import prepare_decode
from streaming_attention.triton.prebuilt import read

# name, storage, heads, kv_heads, tokens, head_dim, causal, bar
PREFILL = [
    (f"{'causal' if causal else 'dense'} d={head_dim}", storage, 2, 2, 4096, head_dim, causal, None)
    for storage in ("fp32", "bf16")
    for head_dim in (64, 128)
    for causal in (False, True)
]
BARS = {"fp32": "0.90 x streaming, 2.0 x torch", "bf16": "3.5 x torch"}
# name, heads, kv_heads, keys
DECODE = [("1 head, 64K keys", 1, 1, 65536), ("GQA 16/8, 16K keys", 16, 8, 16384)]
COLD_BYTES = 128 << 20
SIZE = 1024


def prefill(case, threads: int, rounds: int) -> None:
    """Triton against the vector kernels and torch."""
    name, storage, heads, _, tokens, head_dim, causal, _ = case
    q, k, v = draw(case)
    outs = [np.empty_like(q) for _ in range(2)]
    lse = np.empty(q.shape[:3], np.float32)
    calls = {
        "streaming": lambda: run_prefill(q, k, v, outs[0], causal=causal, threads=threads),
        "triton": prepare_attention(q, k, v, outs[1], lse, causal=causal, scale=None, threads=threads),
    }
    if importlib.util.find_spec("torch"):
        calls["torch"] = torch_sdpa(q, k, v, causal, threads)
    peak = dot_peak if storage == "bf16" else fma_peak
    flops = 4 * head_dim * heads * (tokens * (tokens + 1) // 2 if causal else tokens**2)
    times, peaks = {each: [] for each in calls}, []
    for _ in range(rounds + 1):
        peaks.append(peak(threads))
        for each, call in calls.items():
            times[each].append(seconds(call))
    times = {each: np.array(values[1:]) for each, values in times.items()}
    triton = times.pop("triton")
    share = np.median(flops / triton / 1e9 / np.array(peaks[1:]))
    ratios = ", ".join(f"{np.median(values / triton):.2f} x {each}" for each, values in times.items())
    rate = flops / np.median(triton) / 1e9
    print(
        f"{storage} {name:13} {rate:5.0f} GFLOP/s, {share:.2f} of the peak, {ratios} (bar {BARS[storage]})", flush=True
    )


def decode(case, threads: int, rounds: int) -> None:
    """Triton and the vector kernel against cold reads of the same bytes."""
    name, heads, kv_heads, keys = case
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, heads, 1, 128), dtype=np.float32)
    out, lse = np.empty_like(q), np.empty(q.shape[:3], np.float32)
    copies = [rng.standard_normal((2, 1, kv_heads, keys, 128), dtype=np.float32) for _ in range(2)]
    cold = [np.ones(max(COLD_BYTES - copies[0].nbytes, 0) // 4 + 1024, np.float32)]
    arguments = {"causal": False, "scale": None, "threads": threads}
    rows = []
    for k, v in copies:
        theirs = prepare_streaming_decode(q, k, v, out, lse, **arguments)
        rows.append((k, v, {"triton": prepare_decode(q, k, v, out, lse, **arguments), "streaming": theirs}))
    shares = {}
    for turn in range(rounds + 2):
        k, v, calls = rows[turn % 2]
        for each, call in calls.items():
            taken = []
            for measured in (partial(read_seconds, [k, v], threads), call, partial(read_seconds, [k, v], threads)):
                read_seconds(cold, threads)
                taken.append(seconds(measured))
            if turn > 1:
                shares.setdefault(each, []).append((taken[0] + taken[2]) / 2 / taken[1])
    text = ", ".join(f"{each} {np.median(values):.3f}" for each, values in shares.items())
    print(f"fp32 decode {name:20} share of a cold read: {text} (bar 0.90)", flush=True)


def matmul(rounds: int) -> None:
    """A plain tiled product against BLAS, both on one core."""
    import triton_matmul
    from threadpoolctl import threadpool_limits

    import streaming_attention.triton as cpu

    cpu.activate()
    cpu.set_threads(1)
    a, b = np.random.default_rng(0).standard_normal((2, SIZE, SIZE), dtype=np.float32)
    out, blas = np.empty_like(a), np.empty_like(a)
    calls = {"triton": lambda: triton_matmul.run(a, b, out), "BLAS": lambda: np.matmul(a, b, out=blas)}
    times = {each: [] for each in calls}
    with threadpool_limits(1):
        for _ in range(rounds + 1):
            for each, call in calls.items():
                times[each].append(seconds(call))
    np.testing.assert_allclose(out, blas, atol=1e-3)
    times = {each: np.array(values[1:]) for each, values in times.items()}
    rate = 2 * SIZE**3 / np.median(times["triton"]) / 1e9
    ratio = np.median(times["BLAS"] / times["triton"])
    print(f"matmul {SIZE}^3 fp32: {rate:.0f} GFLOP/s, {ratio:.2f} x BLAS (bar 1.2)", flush=True)


def compilation() -> None:
    """The largest kernel from TTIR to machine code and from the disk."""
    text, target = read(known.prefill("fp32", 128, True, pair=True)), make_target()
    Kernel(compile_ttir(read(known.merge("fp32", 32)), target))  # LLVM itself starts
    cold = min(seconds(lambda: Kernel(compile_ttir(text, target))) for _ in range(3))
    load_or_compile(text, target)
    warm = min(seconds(lambda: Kernel(load_or_compile(text, target))) for _ in range(3))
    print(f"compile {cold:.2f} s (bar 1.0), from the disk {warm:.3f} s (bar 0.05)", flush=True)


def launches(threads: int) -> None:
    """A launch of programs that do next to nothing."""
    kernel = Kernel(compile_ttir(read(known.merge("fp32", 32)), make_target()))
    x = np.zeros(64, np.float32)
    values = [x.ctypes.data] * 4 + [0] * 5 + [0, 1, 1, 1]
    times = []
    for _ in range(2000):
        start = time.perf_counter()
        kernel.launch((threads, 1, 1), values, threads)
        times.append(time.perf_counter() - start)
    print(f"launch on {threads} threads: {1e6 * np.median(times):.1f} us (bar 15)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="parts or cases whose name contains this")
    given = parser.parse_args()
    for case in PREFILL:
        if given.only in f"prefill {case[1]} {case[0]}" and not (case[1] == "bf16" and AVX512_BF16.missing()):
            prefill(case, given.threads, given.rounds)
    for case in DECODE:
        if given.only in f"decode {case[0]}":
            decode(case, given.threads, given.rounds)
    if given.only in "matmul" and importlib.util.find_spec("triton"):
        matmul(given.rounds)
    if given.only in "compile":
        compilation()
    if given.only in "launch":
        launches(given.threads)


if __name__ == "__main__":
    main()
