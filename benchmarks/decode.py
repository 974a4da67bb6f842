"""Decode beside cold reads of the same bytes, by storage and page size, interleaved.

    python benchmarks/decode.py [--threads N] [--rounds N]

Every call reads K and V that were pushed out of the caches by the ones before it: each case keeps enough copies. The
share is the mean time of the reads around a call over the call's; the ratio is against fp32's median in this run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ceilings import read_seconds

from streaming_attention.streaming.front import run_decode

# name, heads, kv_heads, keys
CASES = [("1 head, 64K keys", 1, 1, 65536), ("GQA 16/8, 16K keys", 16, 8, 16384)]
HEAD_DIM = 128
COLD_BYTES = 128 << 20
"""Bytes touched between two uses of a copy, beyond the last-level cache of most machines."""


def variants(k, v, rng):
    """Name -> (k, v, options) from fp32 (1, kv_heads, keys, head_dim)."""
    yield "fp32", k, v, {}
    yield "bf16", *((x.view(np.uint32) >> 16).astype(np.uint16) for x in (k, v)), {}
    scale = np.full(k.shape[:3], 0.05, np.float32)
    yield "int8", *((20 * x).astype(np.int8) for x in (k, v)), {"k_scale": scale, "v_scale": scale}
    for page in (256, 64, 16):
        count = k.shape[2] // page
        table = rng.permutation(count).astype(np.int32)[None]
        place = np.argsort(table[0])
        pages = [
            np.ascontiguousarray(x[0].reshape(len(x[0]), count, page, HEAD_DIM).swapaxes(0, 1)[place]) for x in (k, v)
        ]
        yield f"pages of {page}", *pages, {"block_table": table, "kv_layout": "bhtd"}


def measure(case, threads: int, rounds: int) -> None:
    name, heads, kv_heads, keys = case
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, heads, 1, HEAD_DIM), dtype=np.float32)
    out = np.empty_like(q)
    size = 2 * 4 * kv_heads * keys * HEAD_DIM
    copies = [rng.standard_normal((2, 1, kv_heads, keys, HEAD_DIM), dtype=np.float32) for _ in range(2)]
    cold = [np.ones(max(COLD_BYTES - size, 0) // 4 + 1024, np.float32)]
    rows = [list(variants(*copy, rng)) for copy in copies]
    times, shares = {}, {}
    for turn in range(rounds + 1):
        for variant, k, v, options in rows[turn % 2]:
            read_seconds(cold, threads)
            before = read_seconds([k, v], threads)
            read_seconds(cold, threads)
            start = time.perf_counter()
            run_decode(q, k, v, out, threads=threads, **options)
            seconds = time.perf_counter() - start
            read_seconds(cold, threads)
            after = read_seconds([k, v], threads)
            if turn:
                times.setdefault(variant, []).append(seconds)
                shares.setdefault(variant, []).append((before + after) / 2 / seconds)
    base = np.array(times["fp32"])
    for variant, seconds in times.items():
        ratio = np.median(np.array(seconds) / base)
        print(f"{name:20} {variant:12} {np.median(shares[variant]):.3f} of a cold read, {ratio:.3f} x fp32", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    for case in CASES:
        measure(case, arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
