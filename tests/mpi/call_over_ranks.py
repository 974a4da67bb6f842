"""One rank of the MPI tests: the public call over ranks, case after case; rank 0 writes what came out as JSON.

``python -m mpi4py call_over_ranks.py REPORT`` under mpiexec. Every rank draws the whole problem, passes its share, and
rank 0 judges what all of them got.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import numpy as np
from mpi4py import MPI

from streaming_attention import attention_over_ranks, rank_rows
from streaming_attention.distributed import pieces
from streaming_attention.dtypes import numpy_dtype
from streaming_attention.oracle import judge, oracle, plain
from streaming_attention.slices import key_slice

pieces.CHUNK_FLOPS, pieces.CHUNK_ROWS = 1, 32  # as many chunks, and looks at the network, as a long call has
COMM = MPI.COMM_WORLD
RANKS, RANK = COMM.size, COMM.rank
CONTIGUOUS = "allgather", "ring", "heads", "pass_q"


def main(report: str) -> None:
    listening = np.zeros(1)
    pending = COMM.Irecv(listening, MPI.ANY_SOURCE, MPI.ANY_TAG)  # takes none of the calls' messages
    results = {name: case() for name, case in cases()}
    errors = {name: COMM.gather(said(wrong)) for name, wrong in mistakes()}
    undisturbed = not pending.Test()
    COMM.Send(np.ones(1), RANK)
    pending.Wait()
    results["messages of the caller"] = {"passed": undisturbed and listening.tolist() == [1.0]}
    if RANK == 0:
        Path(report).write_text(json.dumps({"cases": results, "errors": errors}))


def cases():
    """Names and calls."""
    for strategy in CONTIGUOUS:
        for causal in (False, True):
            options = {"strategy": strategy, "causal": causal}
            yield f"{strategy}, causal {causal}", lambda options=options: dense((2, 4, 2, 45, 61, 16), **options)
        yield f"{strategy}, no overlap", lambda strategy=strategy: dense(strategy=strategy, overlap=False)
        yield f"{strategy}, uneven", lambda strategy=strategy: dense(strategy=strategy, share=lopsided)
        yield f"{strategy}, one token", lambda strategy=strategy: dense((1, 2, 1, 1, 1, 16), strategy=strategy)
        for dtype in ("bf16", "fp16"):
            options = {"strategy": strategy, "dtype": dtype}
            yield f"{strategy}, {dtype}", lambda options=options: dense(**options)
        yield f"{strategy}, sequences", lambda strategy=strategy: ragged(strategy=strategy)
        yield f"{strategy}, sequences, uneven", lambda strategy=strategy: ragged(strategy=strategy, share=lopsided)
    zigzag = {"placement": "zigzag", "share": lambda *sizes: rank_rows(*sizes, "zigzag")}
    yield "zigzag", lambda: dense(**zigzag)
    yield "zigzag, bf16, by token", lambda: dense(dtype="bf16", layout="bthd", **zigzag)
    yield "zigzag, sequences", lambda: ragged(**zigzag)
    yield "auto, by token", lambda: dense(layout="bthd", scale=0.3)
    yield "auto, sequences, all keys", lambda: ragged(causal=False)
    yield "sequences, other keys", lambda: ragged(keys=(9, 0, 30, 5, 200, 1, 0), dtype="fp16")
    few = {"same_queries": True, "share": lopsided}
    yield "decode", lambda: dense((2, 4, 2, 1, 2500, 64), **few)
    yield "decode, causal, bf16", lambda: dense((1, 4, 2, 3, 2500, 64), dtype="bf16", **few)
    yield "decode, by token", lambda: dense((1, 4, 2, 2, 90, 16), layout="bthd", same_queries=True)
    yield "decode, one key", lambda: dense((1, 2, 2, 1, 1, 16), same_queries=True)
    yield "decode, sequences", lambda: ragged((1,) * 6, (2, 700, 0, 31, 900, 64), **few)
    yield "decode, sequences, bf16", lambda: ragged((1, 0, 2), (40, 50, 600), dtype="bf16", **few)
    yield "no keys", lambda: dense((1, 2, 1, 5, 0, 16))
    yield "no queries", lambda: dense((1, 2, 1, 0, 5, 16))
    yield "no sequences", lambda: ragged((), ())


def even(tokens: int, rank: int, ranks: int) -> np.ndarray:
    return np.arange(*key_slice(tokens, rank, ranks))


def lopsided(tokens: int, rank: int, ranks: int) -> np.ndarray:
    """Most of the tokens on the first rank, none on the second of several."""
    most = tokens - tokens // 3
    if rank == 0 or ranks == 1:
        return np.arange(most if ranks > 1 else tokens)
    rest = even(tokens - most, max(0, rank - 2), max(1, ranks - 2)) + most
    return rest if rank != 1 or ranks == 2 else rest[:0]


def draw(*shapes, dtype: str):
    """Standard normal arrays, the same on every rank."""
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape, dtype=np.float32).astype(numpy_dtype(dtype)) for shape in shapes]


def dense(
    sizes=(1, 4, 2, 67, 67, 32), *, causal=True, scale=None, dtype="fp32", layout="bhtd", share=even, **options
) -> dict | None:
    """Arrays of one length of keys, shared out and judged; `sizes` as of a workload."""
    batch, heads, kv_heads, queries, keys, head_dim = sizes
    q, k, v = draw((batch, heads, queries, head_dim), *[(batch, kv_heads, keys, head_dim)] * 2, dtype=dtype)
    mine, own = rows_of(queries, share, options), share(keys, RANK, RANKS)
    arrays = q[:, :, mine], k[:, :, own], v[:, :, own]
    if layout == "bthd":
        arrays = [array.swapaxes(1, 2) for array in arrays]
    out, lse = attention_over_ranks(
        *arrays, COMM, causal=causal, scale=scale, layout=layout, return_lse=True, **options
    )
    proper = out.shape == arrays[0].shape and out.flags.c_contiguous
    out = out.swapaxes(1, 2) if layout == "bthd" else out
    found = together(mine, out, lse, queries, options)
    if RANK == 0:
        return judged(found, [(q, k, v)], causal, scale) | {"proper": proper}


def ragged(
    queries=(30, 1, 0, 17, 45, 2, 3), keys=None, *, causal=True, dtype="fp32", share=even, head_dim=16, **options
) -> dict | None:
    """Sequences side by side, shared out by token and judged one by one."""
    starts = [np.concatenate([[0], np.cumsum(some)]).astype(np.int32) for some in (queries, keys or queries)]
    q, k, v = draw((starts[0][-1], 4, head_dim), *[(starts[1][-1], 2, head_dim)] * 2, dtype=dtype)
    mine, own = rows_of(len(q), share, options), share(len(k), RANK, RANKS)
    options |= {"cu_seqlens_q": starts[0]} | ({"cu_seqlens_k": starts[1]} if keys else {})
    out, lse = attention_over_ranks(q[mine], k[own], v[own], COMM, causal=causal, return_lse=True, **options)
    proper = out.shape == q[mine].shape and lse.shape == (4, len(mine)) and out.flags.c_contiguous
    found = together(mine, out.swapaxes(0, 1)[None], lse[None], len(q), options)
    if RANK == 0:
        cuts = zip(*map(itertools.pairwise, starts), strict=True)
        parts = [(by_head(q[a:b]), by_head(k[c:d]), by_head(v[c:d])) for (a, b), (c, d) in cuts]
        return judged(found, parts, causal, None) | {"proper": proper}


def by_head(array: np.ndarray) -> np.ndarray:
    return array.swapaxes(0, 1)[None]


def rows_of(queries: int, share, options) -> np.ndarray:
    return np.arange(queries) if options.get("same_queries") else share(queries, RANK, RANKS)


def together(mine, out, lse, queries: int, options):
    """Every rank's rows put in their places on rank 0; of the same queries, all ranks' must be the same bits."""
    parts = COMM.gather((mine, out, lse))
    if RANK:
        return None
    if options.get("same_queries"):
        assert all(part[1].tobytes() == out.tobytes() and part[2].tobytes() == lse.tobytes() for part in parts)
        return out, lse
    whole = np.empty((*out.shape[:2], queries, out.shape[3]), out.dtype)
    whole_lse = np.empty(whole.shape[:3], np.float32)
    for rows, some, its in parts:
        whole[:, :, rows], whole_lse[:, :, rows] = some, its
    return whole, whole_lse


def judged(found, sequences, causal: bool, scale) -> dict:
    """Against the oracle, sequence by sequence."""
    out, lse = found
    whole = [[compute(*part, causal=causal, scale=scale) for part in sequences] for compute in (oracle, plain)]
    if not sequences:
        return {"passed": out.size == lse.size == 0}
    (right, right_lse), (textbook, textbook_lse) = (
        [np.concatenate(parts, axis=2) for parts in zip(*some, strict=True)] for some in whole
    )
    seen = np.isfinite(right_lse)
    verdicts = judge(out, right, textbook), judge(lse[seen], right_lse[seen], textbook_lse[seen])
    empty = bool((lse[~seen] == -np.inf).all() and not out[~seen].any())
    return {
        "passed": out.dtype == sequences[0][0].dtype and empty and all(verdict.passed for verdict in verdicts),
        "verdicts": [verdict._asdict() for verdict in verdicts],
    }


def mistakes():
    """Names and calls that must fail on every rank, most of them with one rank's mistake."""
    last = RANK == RANKS - 1
    q, k, v = (np.zeros((1, 2, 4, 8), np.float32) for _ in range(3))
    starts = np.array([0, 4 * RANKS], np.int32)

    def call(*arrays, **options):
        return lambda: attention_over_ranks(*(arrays or (q, k, v)), COMM, **options)

    yield "k on the last rank", call(q, k[:, :, :, :4] if last else k, v[:, :, :, :4] if last else v)
    yield "q on the last rank", call([1.0] if last else q, k, v)
    yield "causal differs", call(causal=last)
    yield "scale differs", call(scale=0.5 + last)
    yield "heads differ", call(q, k[:, : 2 - last], v[:, : 2 - last])
    yield "dtype differs", call(q, *(array.astype(np.float16) if last else array for array in (k, v)))
    yield "strategy unknown", call(strategy="rings")
    yield "strategy impossible", call(strategy="spread")
    yield "zigzag of the same queries", call(placement="zigzag", same_queries=True)
    yield "zigzag uneven", call(q, *(array[:, :, : 4 - 3 * last] for array in (k, v)), placement="zigzag")
    yield "queries differ", call(q[:, :, : 4 - last], k, v, same_queries=True)
    packed = [array[0].swapaxes(0, 1) for array in (q, k, v)]
    yield "starts end early", call(*packed, cu_seqlens_q=starts - np.array([0, 1], np.int32))
    yield "starts differ", call(*packed, cu_seqlens_q=np.array([0, 1 + last, 4 * RANKS], np.int32))
    yield "starts of keys", call(*packed, cu_seqlens_q=starts, cu_seqlens_k=np.array([0, 2, 4 * RANKS], np.int32))
    yield "unknown option", call(blocks=3)
    yield "threads", call(threads=10**6 if last else 1)
    yield "no communicator", lambda: attention_over_ranks(q, k, v, None)


def said(wrong) -> str:
    try:
        wrong()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


if __name__ == "__main__":
    main(*sys.argv[1:])
