"""Where the dispatcher should change its mind: decode against prefill by rows, one thread against several by work.

    python benchmarks/crossovers.py [--threads N] [--rounds N]

Medians of interleaved ratios; the constants of ``streaming/dispatch.py`` come from here.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from streaming_attention.streaming.front import run_decode, run_prefill

HEADS, HEAD_DIM = 4, 128
SHORTEST = 300e-6
"""Seconds over which a call is repeated."""


def arrays(rows: int, keys: int, heads: int = HEADS, group: int = 1, bf16: bool = False):
    """q, k, v, out of `rows` queries and `group` query heads for each of `heads` K/V heads."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, heads * group, rows, HEAD_DIM), dtype=np.float32)
    k, v = rng.standard_normal((2, 1, heads, keys, HEAD_DIM), dtype=np.float32)
    if bf16:
        q, k, v = ((x.view(np.uint32) >> 16).astype(np.uint16) for x in (q, k, v))
    return q, k, v, np.empty_like(q)


def seconds(call) -> float:
    repeats, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SHORTEST or not repeats:
        call()
        repeats += 1
    return passed / repeats


def ratio(one, other, rounds: int) -> float:
    """Median of `one`'s time over `other`'s, in turns."""
    one(), other()
    return float(np.median([seconds(one) / seconds(other) for _ in range(rounds)]))


def compare_kernels(name: str, given, rounds: int):
    """Print the time of decode over prefill, causal, by keys and rows."""
    counts = (1, 2, 4, 8, 10, 12, 16, 20, 24, 32)
    print(f"time of decode over prefill, one thread: {name}; rows per K/V head across")
    print("keys     " + "".join(f"{count:7}" for count in counts))
    for keys in (16, 128, 512, 2048, 8192):
        ratios = []
        for count in counts:
            x = given(count, keys)
            ratios.append(ratio(lambda x=x: run_decode(*x), lambda x=x: run_prefill(*x, causal=True), rounds))
        print(f"{keys:6}   " + "".join(f"{value:7.2f}" for value in ratios), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    for name, given in (
        ("several queries", lambda rows, keys: arrays(rows, keys)),
        ("a group of one query", lambda rows, keys: arrays(1, keys, group=rows)),
        ("a group of one bfloat16 query", lambda rows, keys: arrays(1, keys, group=rows, bf16=True)),
    ):
        compare_kernels(name, given, arguments.rounds)
    print(f"time of {arguments.threads} threads over one, by multiply-adds of Q K^T; heads across")
    heads = (1, 2, 4, 8, 16)
    print("         " + "".join(f"{count:16}" for count in heads))
    for name, run, count in (("decode", run_decode, 1), ("prefill", run_prefill, 64)):
        for keys in (32, 128, 512, 2048, 8192):
            cells = []
            for some in heads:
                given = arrays(count, keys, some)
                calls = (lambda x=given, n=n, run=run: run(*x, threads=n) for n in (arguments.threads, 1))
                work = some * count * keys * HEAD_DIM
                cells.append(f"{work / 2**20:7.2f}M {ratio(*calls, arguments.rounds):5.2f}")
            print(f"{name:8}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
