"""Decode beside cold reads of the same bytes, by storage and page size, interleaved.

    python benchmarks/decode.py [--shapes] [--isa NAME] [--threads N] [--rounds N] [--csv FILE]

Every call reads K and V that were pushed out of the caches by the ones before it: each case keeps enough copies. The
share is the mean time of the reads around a call over the call's; the ratio is against fp32's time in the same turn.
Calls are prepared before, as those of a campaign are and as the reads are: how long preparing takes doesn't depend on
the keys.
Pages have another ceiling: a plain loop that reads a head's part of each page in the table's order, first of K, then of
V, 1024 keys at a time as decode does. Its ratio against a read of the same bytes in one piece says what no kernel can
avoid that reads pages in that order.

``--shapes`` asks for other head dimensions and sizes of groups instead of pages.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from ceilings import append_rows, read_seconds
from numba import njit

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.isa import lanes, select_isa
from streaming_attention.simd.memory import load_i64, prefetch
from streaming_attention.simd.vectors import load, splat, store
from streaming_attention.streaming import pool
from streaming_attention.streaming.front import prepare_decode

HEAD_DIM = 128
# name, heads, kv_heads, keys, head_dim
CASES = [("1 head, 64K keys", 1, 1, 65536, HEAD_DIM), ("GQA 16/8, 32K keys", 16, 8, 32768, HEAD_DIM)]
SHAPES = [
    (f"group of {heads}, head_dim {dim}", heads, 1, (32 << 20) // (8 * dim), dim)
    for heads, dim in [(1, 64), (1, 96), (1, 128), (1, 256), (4, 64), (4, 128), (8, 128)]
]
PAGES = (256, 64, 16)
COLD_BYTES = 128 << 20
"""Bytes touched between two uses of a copy, beyond the last-level cache of most machines."""
SPLIT = 1024
RUN_BYTES = 16 * HEAD_DIM * 4


@njit(nogil=True, error_model="numpy", cache=True)
def _read_runs(isa, job, task, scratch):
    """Read the runs of a split, each prefetching the next: the job holds their addresses' address and number."""
    runs, count = load_i64(job), load_i64(job + 8)
    step = 4 * lanes(isa)
    s0 = splat(isa, np.float32(0))
    s1, s2, s3 = s0, s0, s0
    for run in range(task * 2 * SPLIT // 16, (task + 1) * 2 * SPLIT // 16):
        p, soon = load_i64(runs + 8 * run), load_i64(runs + 8 * min(run + 1, count - 1))
        for at in range(0, RUN_BYTES, 4 * step):
            for line in range(at, at + 4 * step, 64):
                prefetch(soon + line)
            q = p + at
            s0, s1 = s0 + load(isa, q), s1 + load(isa, q + step)
            s2, s3 = s2 + load(isa, q + 2 * step), s3 + load(isa, q + 3 * step)
    store(s0 + s1 + s2 + s3, scratch)


def read_pages_seconds(k, v, table, threads: int) -> float:
    """Seconds to read pages of fp32 (pages, kv_heads, page_size, head_dim) in the order in which decode does."""
    _, kv_heads, page, _ = k.shape
    within = np.arange(page // 16) * RUN_BYTES
    addresses = []
    for head in range(kv_heads):
        starts = [
            (x.ctypes.data + x.strides[0] * table[0].astype(np.int64) + x.strides[1] * head)[:, None] + within
            for x in (k, v)
        ]
        addresses += [np.stack([x.reshape(-1, SPLIT // 16) for x in starts], axis=1).ravel()]
    runs = np.concatenate(addresses)
    job = np.array([runs.ctypes.data, len(runs)], np.int64)
    isa = select_isa()
    start = time.perf_counter()
    pool.launch(isa, address_of(_read_runs, isa, 3), job.ctypes.data, len(runs) * 16 // (2 * SPLIT), threads, 64)
    return time.perf_counter() - start


def variants(k, v):
    """Name -> (k, v, options) from fp32 (1, kv_heads, keys, head_dim)."""
    yield "fp32", k, v, {}
    yield "bf16", *((x.view(np.uint32) >> 16).astype(np.uint16) for x in (k, v)), {}
    scale = np.full(k.shape[:3], 0.05, np.float32)
    yield "int8", *((20 * x).astype(np.int8) for x in (k, v)), {"k_scale": scale, "v_scale": scale}


def paged_variants(k, v, rng):
    """The same in pages, of fp32 and head_dim 128."""
    for page in PAGES:
        count = k.shape[2] // page
        table = rng.permutation(count).astype(np.int32)[None]
        place = np.argsort(table[0])
        pages = [
            np.ascontiguousarray(x[0].reshape(len(x[0]), count, page, HEAD_DIM).swapaxes(0, 1)[place]) for x in (k, v)
        ]
        yield f"pages of {page}", *pages, {"block_table": table, "kv_layout": "bhtd"}
        if len(k[0]) > 1:
            tokens_first = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in pages)
            yield f"{page}, tokens first", *tokens_first, {"block_table": table, "kv_layout": "bthd"}


def measure(case, threads: int, rounds: int, isa=None) -> list[tuple]:
    name, heads, kv_heads, keys, head_dim = case
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, heads, 1, head_dim), dtype=np.float32)
    out = np.empty_like(q)
    size = 2 * 4 * kv_heads * keys * head_dim
    copies = [rng.standard_normal((2, 1, kv_heads, keys, head_dim), dtype=np.float32) for _ in range(2)]
    cold = [np.ones(max(COLD_BYTES - size, 0) // 4 + 1024, np.float32)]
    rows = [list(variants(*copy)) for copy in copies]
    if case in CASES:
        rows = [[*row, *paged_variants(*copy, rng)] for row, copy in zip(rows, copies, strict=True)]
    times, shares, reads = {}, {}, {}
    for turn in range(rounds + 1):
        for variant, k, v, options in rows[turn % 2]:
            read_seconds(cold, threads)
            before = read_seconds([k, v], threads)
            call = prepare_decode(q, k, v, out, threads=threads, isa=isa, **options)
            read_seconds(cold, threads)
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            read_seconds(cold, threads)
            after = read_seconds([k, v], threads)
            if turn:
                times.setdefault(variant, []).append(seconds)
                shares.setdefault(variant, []).append((before + after) / 2 / seconds)
            if turn and options.get("kv_layout") == "bhtd":
                read_seconds(cold, threads)
                paged = read_pages_seconds(k, v, options["block_table"], threads)
                reads.setdefault(variant, []).append(2 * paged / (before + after))
    base = np.array(times["fp32"])
    table = []
    for variant, seconds in times.items():
        ratio = np.median(np.array(seconds) / base)
        beside = f", a read of the pages {np.median(reads[variant]):.3f} x in one piece" if variant in reads else ""
        share = np.median(shares[variant])
        print(f"{name:26} {variant:17} {share:.3f} of a cold read, {ratio:.3f} x fp32{beside}", flush=True)
        table.append((name, variant, threads, f"{share:.4f}", f"{ratio:.4f}"))
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", action="store_true", help="other head dimensions and groups instead of pages")
    parser.add_argument("--isa", help="an instruction set instead of the best one here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--csv", help="add the shares and ratios to this file")
    arguments = parser.parse_args()
    isa = arguments.isa and select_isa(arguments.isa)
    for case in SHAPES if arguments.shapes else CASES:
        append_rows(arguments.csv, measure(case, arguments.threads, arguments.rounds, isa))


if __name__ == "__main__":
    main()
