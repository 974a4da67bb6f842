"""Prefill beside the FMA peak and the peers that are installed, interleaved; medians of ratios within this run.

    python benchmarks/prefill.py [--threads N] [--rounds N]

Each round measures the peak, then every contender, then the peak again; a contender's share is its rate over the mean
of the two peaks around it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ceilings import fma_peak

from streaming_attention.streaming.front import run_prefill

# name, heads, kv_heads, tokens, head_dim, causal, bar (share of the peak on one core)
CASES = [
    ("dense d=128", 2, 2, 4096, 128, False, 0.92),
    ("causal d=128", 2, 2, 4096, 128, True, 0.86),
    ("dense d=64", 2, 2, 4096, 64, False, 0.87),
    ("causal d=64", 2, 2, 4096, 64, True, 0.82),
    ("short causal GQA", 16, 8, 512, 128, True, None),
]


def ours(q, k, v, causal, threads):
    out = np.empty_like(q)
    return lambda: run_prefill(q, k, v, out, causal=causal, threads=threads)


def torch_sdpa(q, k, v, causal, threads):
    import torch

    torch.set_num_threads(threads)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    sdpa = torch.nn.functional.scaled_dot_product_attention
    return lambda: sdpa(*tensors, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


CONTENDERS = {"streaming": ours, "torch": torch_sdpa}


def measure(case, threads: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median GFLOP/s and median share of the peak, by contender."""
    _, heads, kv_heads, tokens, head_dim, causal, _ = case
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, heads, tokens, head_dim), dtype=np.float32)
    k, v = rng.standard_normal((2, 1, kv_heads, tokens, head_dim), dtype=np.float32)
    flops = 4 * head_dim * heads * (tokens * (tokens + 1) // 2 if causal else tokens**2)
    calls = {}
    for name, make in CONTENDERS.items():
        try:
            calls[name] = make(q, k, v, causal, threads)
            calls[name]()
        except ImportError:
            calls.pop(name, None)
    rates = {name: [] for name in calls}
    shares = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before = fma_peak(threads)
            start = time.perf_counter()
            call()
            rate = flops / (time.perf_counter() - start) / 1e9
            rates[name].append(rate)
            shares[name].append(2 * rate / (before + fma_peak(threads)))
    return {name: (float(np.median(rates[name])), float(np.median(shares[name]))) for name in calls}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    for case in CASES:
        for name, (rate, share) in measure(case, arguments.threads, arguments.rounds).items():
            bar = f" (bar {case[-1]:.2f})" if case[-1] and name == "streaming" else ""
            print(f"{case[0]:18} {name:10} {rate:6.0f} GFLOP/s  {share:.3f} of the peak{bar}", flush=True)


if __name__ == "__main__":
    main()
