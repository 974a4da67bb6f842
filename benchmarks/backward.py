"""The backward pass beside the forward pass, interleaved; medians of ratios within this run.

    python benchmarks/backward.py [--threads N] [--rounds N] [--dtype fp32|bf16]

Each round times the forward pass, the backward pass and the forward pass again; the ratio is the backward's time over
the mean of the two around it. Forward does 2 matrix products, backward 5: at equal rates the ratio is 2.5. The peak is
that of FMA, or of bf16 dot products where bf16 is multiplied.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ceilings import dot_peak, fma_peak

from streaming_attention.simd.isa import AVX512_BF16
from streaming_attention.streaming.backward_front import run_backward
from streaming_attention.streaming.front import run_prefill

# name, heads, kv_heads, tokens, head_dim, causal
CASES = [
    ("dense d=128", 2, 2, 4096, 128, False),
    ("causal d=128", 2, 2, 4096, 128, True),
    ("dense d=64", 2, 2, 4096, 64, False),
    ("causal d=64", 2, 2, 4096, 64, True),
    ("causal GQA 8/2 d=128", 8, 2, 1024, 128, True),
]
BAR = 2.6


def as_stored(array, dtype: str):
    """fp32 values in the storage format that the kernels take."""
    return array if dtype == "fp32" else (array.view(np.uint32) >> 16).astype(np.uint16)


def measure(case, threads: int, rounds: int, dtype: str) -> tuple[float, float, float]:
    """Median ratio of the times; median shares of the peak of forward and backward."""
    highest = dot_peak if dtype == "bf16" and not AVX512_BF16.missing() else fma_peak
    _, heads, kv_heads, tokens, head_dim, causal = case
    rng = np.random.default_rng(0)
    q, dout = (as_stored(x, dtype) for x in rng.standard_normal((2, 1, heads, tokens, head_dim), dtype=np.float32))
    k, v = (as_stored(x, dtype) for x in rng.standard_normal((2, 1, kv_heads, tokens, head_dim), dtype=np.float32))
    out, lse = np.empty_like(q), np.empty(q.shape[:3], np.float32)
    gradients = [np.empty_like(x) for x in (q, k, v)]
    flops = 4 * head_dim * heads * (tokens * (tokens + 1) // 2 if causal else tokens**2)

    def forward():
        run_prefill(q, k, v, out, lse, causal=causal, threads=threads)

    def backward():
        run_backward(dout, q, k, v, out, lse, *gradients, causal=causal, threads=threads)

    ratios, shares = [], []
    for turn in range(rounds + 1):
        peak = highest(threads)
        before, seconds, after = (timed(call) for call in (forward, backward, forward))
        peak = (peak + highest(threads)) / 2e-9
        if turn:
            ratios.append(2 * seconds / (before + after))
            shares.append((2 * flops / (before + after) / peak, 2.5 * flops / seconds / peak))
    return float(np.median(ratios)), *np.median(shares, axis=0)


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    arguments = parser.parse_args()
    for case in CASES:
        ratio, forward, backward = measure(case, arguments.threads, arguments.rounds, arguments.dtype)
        print(
            f"{arguments.dtype} {case[0]:22} {ratio:.2f} x forward (bar {BAR}); of the peak: forward {forward:.3f}, "
            f"backward {backward:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
