"""Prefill beside the peak of its arithmetic and the peers that are installed, interleaved; medians of ratios.

    python benchmarks/prefill.py [--threads N] [--rounds N] [--only WORD] [--csv FILE]

Each round measures the peak (FMA, or bf16 dot products where bf16 is multiplied), then every contender, then the peak
again; a contender's share is its rate over the mean of the two peaks around it. The second table is the time of options
and of other ways to hand over K and V against the plain call in the same round.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ceilings import append_rows, dot_peak, fma_peak
from peers import to_bf16, torch_sdpa

from streaming_attention.simd.isa import AVX512_BF16
from streaming_attention.streaming.front import run_prefill

# name, storage, heads, kv_heads, tokens, head_dim, causal, bar on one core (share of the peak, or GFLOP/s)
CASES = [
    ("dense d=128", "fp32", 2, 2, 4096, 128, False, 0.92),
    ("causal d=128", "fp32", 2, 2, 4096, 128, True, 0.86),
    ("dense d=64", "fp32", 2, 2, 4096, 64, False, 0.87),
    ("causal d=64", "fp32", 2, 2, 4096, 64, True, 0.82),
    ("short causal GQA", "fp32", 16, 8, 512, 128, True, 150),
    ("dense d=128", "bf16", 2, 2, 4096, 128, False, 0.86),
    ("causal d=128", "bf16", 2, 2, 4096, 128, True, 0.80),
    ("dense d=64", "bf16", 2, 2, 4096, 64, False, None),
    ("causal d=64", "bf16", 2, 2, 4096, 64, True, None),
    ("short causal GQA", "bf16", 16, 8, 512, 128, True, 240),
    ("causal d=128", "fp16", 2, 2, 4096, 128, True, None),
]


STORE = {"fp32": lambda x: x, "fp16": lambda x: x.astype(np.float16), "bf16": to_bf16}


def draw(case):
    """q, k, v in the case's storage."""
    _, storage, heads, kv_heads, tokens, head_dim, *_ = case
    rng = np.random.default_rng(0)
    shapes = [(1, count, tokens, head_dim) for count in (heads, kv_heads, kv_heads)]
    return [STORE[storage](rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]


def ours(q, k, v, causal, threads):
    out = np.empty_like(q)
    return lambda: run_prefill(q, k, v, out, causal=causal, threads=threads)


CONTENDERS = {"streaming": ours, "torch": torch_sdpa}


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(case, threads: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median GFLOP/s and median share of the peak, by contender."""
    _, storage, heads, _, tokens, head_dim, causal, _ = case
    arrays = draw(case)
    peak = dot_peak if storage == "bf16" else fma_peak
    flops = 4 * head_dim * heads * (tokens * (tokens + 1) // 2 if causal else tokens**2)
    calls = {}
    for name, make in CONTENDERS.items():
        try:
            calls[name] = make(*arrays, causal, threads)
            calls[name]()
        except ImportError:
            calls.pop(name, None)
    rates = {name: [] for name in calls}
    shares = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before = peak(threads)
            rate = flops / seconds(call) / 1e9
            rates[name].append(rate)
            shares[name].append(2 * rate / (before + peak(threads)))
    return {name: (float(np.median(rates[name])), float(np.median(shares[name]))) for name in calls}


def ways(storage: str, threads: int):
    """Name -> call, the plain one first: options, layouts and pages of one causal problem."""
    case = ("", storage, 8, 4, 2048, 128, True, None)
    q, k, v = draw(case)
    out = np.empty_like(q)
    slopes = np.geomspace(1, 2**-7, q.shape[1]).astype(np.float32)

    def way(*arrays, **options):
        return lambda: run_prefill(*arrays, causal=True, threads=threads, **options)

    calls = {"plain": way(q, k, v, out), "softcap": way(q, k, v, out, softcap=30.0)}
    calls |= {"ALiBi": way(q, k, v, out, slopes=slopes), "sinks": way(q, k, v, out, sinks=slopes)}
    calls["window of 512"] = way(q, k, v, out, window=(511, None))
    calls["bthd"] = way(*(np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v, out)), layout="bthd")
    for page in (16, 256):
        count = k.shape[2] // page
        table = np.random.default_rng(0).permutation(count).astype(np.int32)[None]
        pages = []
        for x in (k, v):
            pages.append(np.empty((count, page, x.shape[1], x.shape[3]), x.dtype))
            pages[-1][table[0]] = x[0].reshape(x.shape[1], count, page, -1).transpose(1, 2, 0, 3)
        calls[f"pages of {page}"] = way(q, *pages, out, block_table=table)
    starts = np.array([0, 100, 400, 401, 1200, 2048], np.int32)
    tokens_first = [np.ascontiguousarray(x[0].swapaxes(0, 1)) for x in (q, k, v, out)]
    calls["5 sequences"] = way(*tokens_first, cu_seqlens_q=starts)
    return calls


def compare_ways(storage: str, threads: int, rounds: int) -> None:
    calls = ways(storage, threads)
    ratios = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            before, time_taken, after = seconds(calls["plain"]), seconds(call), seconds(calls["plain"])
            if turn:
                ratios[name].append(2 * time_taken / (before + after))
    for name, values in ratios.items():
        print(f"{storage} {name:16} {np.median(values):.3f} of the plain call's time", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="cases whose storage or name contains this")
    parser.add_argument("--csv", help="add the shares of the peak to this file")
    arguments = parser.parse_args()
    table = []
    for case in CASES:
        if case[1] == "bf16" and AVX512_BF16.missing():
            continue
        if arguments.only not in f"{case[1]} {case[0]}":
            continue
        for name, (rate, share) in measure(case, arguments.threads, arguments.rounds).items():
            bar = f" (bar {case[-1]})" if case[-1] and name == "streaming" else ""
            label = f"{case[1]} {case[0]:18} {name:10}"
            table.append((case[1], case[0], arguments.threads, name, f"{rate:.1f}", f"{share:.4f}", case[-1] or ""))
            print(f"{label} {rate:6.0f} GFLOP/s  {share:.3f} of the peak{bar}", flush=True)
    for storage in STORE:
        if arguments.only in f"{storage} options":
            compare_ways(storage, arguments.threads, arguments.rounds)
    append_rows(arguments.csv, table)


if __name__ == "__main__":
    main()
