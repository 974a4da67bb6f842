"""One rank of the MPI tests: attention over ranks on given workloads; rank 0 writes what came out as JSON.

``python -m mpi4py attend_over_ranks.py REPORT METHOD THREADS WORKLOADS OPTIONS`` under mpiexec; WORKLOADS and OPTIONS
are JSON lists, and every workload is computed with every set of options.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import numpy as np
from mpi4py import MPI

from streaming_attention.distributed import pieces
from streaming_attention.dtypes import name_of
from streaming_attention.inputs import make_inputs, refill
from streaming_attention.oracle import judge, oracle, plain
from streaming_attention.prepared import Stage
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

pieces.CHUNK_FLOPS, pieces.CHUNK_ROWS = 1, 32  # as many chunks, and looks at the network, as a long call has
COMM = MPI.COMM_WORLD


def main(report: str, method: str, threads: str, workloads: str, options: str) -> None:
    results = [
        [attend(METHODS[method], Workload(**fields), int(threads), chosen) for chosen in json.loads(options)]
        for fields in json.loads(workloads)
    ]
    if COMM.rank == 0:
        Path(report).write_text(json.dumps(results))


def attend(method, workload: Workload, threads: int, options: dict) -> dict | None:
    """Compute three times on the same inputs, the last time with a slow rank, and once on fresh ones."""
    held = method.distributed_holding(workload, COMM.rank, COMM.size, threads, **method.complete(options))
    inputs = make_inputs(workload, 1, held)
    prepared = method.load(2)(inputs, threads, COMM, {"block": 32, **options})
    rows, bits = np.arange(workload.queries), []
    for slow in (False, False, True):
        run(prepared, slow and COMM.rank == COMM.size - 1)
        found = prepared.rows(rows)
        bits.append(hashlib.sha256(b"".join(part.tobytes() for part in found or ())).hexdigest())
    first = verdict(found, workload, 1) if COMM.rank == 0 else None
    refill(inputs, 2)
    prepared.run()
    found = prepared.rows(rows)
    second = verdict(found, workload, 2) if COMM.rank == 0 else None
    result = {
        "verdicts": [first, second],
        "bits": bits,
        "held": COMM.gather((held.query_count, held.key_count)),
        "rows": COMM.gather(prepared.output.shape[2]),
        "dtypes": COMM.gather(name_of(prepared.output.dtype)),
        "kinds": COMM.gather(sorted({Stage(*stage).kind for stage in prepared.stages})),
        "labelled": all(Stage(*stage).label for stage in prepared.stages),
        "kernel": prepared.kernel,
    }
    prepared.close()
    return result


def run(prepared, slow: bool) -> None:
    for _, stage, *_ in prepared.stages:
        stage()
        if slow:
            time.sleep(0.0005)


def verdict(found, workload: Workload, seed: int) -> dict:
    output, lse = found
    (reference, right_lse), (textbook, textbook_lse) = references(workload, seed)
    empty = right_lse == float("-inf")
    return {
        "out": judge(output, reference, textbook)._asdict(),
        "lse": judge(lse[~empty], right_lse[~empty], textbook_lse[~empty])._asdict(),
        "empty_rows_right": bool((lse[empty] == right_lse[empty]).all() and not output[empty].any()),
    }


@functools.cache
def references(workload: Workload, seed: int):
    whole = make_inputs(workload, seed)
    return [compute(whole.q, whole.k, whole.v, causal=workload.causal) for compute in (oracle, plain)]


if __name__ == "__main__":
    main(*sys.argv[1:])
