"""One rank of the MPI tests: spread attention on given workloads; rank 0 writes what came out as JSON.

``python -m mpi4py attend_over_ranks.py REPORT THREADS WORKLOADS`` under mpiexec; WORKLOADS is a JSON list.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "2")

from mpi4py import MPI

from streaming_attention.inputs import make_inputs, refill
from streaming_attention.oracle import judge, oracle, plain
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload


def main(report: str, threads: str, workloads: str) -> None:
    comm = MPI.COMM_WORLD
    results = [attend(Workload(**fields), int(threads), comm) for fields in json.loads(workloads)]
    if comm.rank == 0:
        Path(report).write_text(json.dumps(results))


def attend(workload: Workload, threads: int, comm) -> dict | None:
    """Compute twice on the same inputs and once on fresh ones."""
    inputs = make_inputs(workload, 1, comm.rank, comm.size)
    prepared = METHODS["streaming"].load(max(2, comm.size))(inputs, threads, comm, {"block": 32})
    bits = [hashlib.sha256(prepared.run().tobytes()).hexdigest() for _ in range(2)]
    first = verdict(prepared, workload, 1) if comm.rank == 0 else None
    refill(inputs, 2)
    prepared.run()
    second = verdict(prepared, workload, 2) if comm.rank == 0 else None
    slices = comm.gather(inputs.key_stop - inputs.key_start)
    prepared.close()
    return {
        "verdicts": [first, second],
        "bits": bits,
        "slices": slices,
        "stages": comm.gather([name for name, _ in prepared.stages]),
        "kernel": prepared.kernel,
    }


def verdict(prepared, workload: Workload, seed: int) -> dict:
    whole = make_inputs(workload, seed)
    reference, lse = oracle(whole.q, whole.k, whole.v, causal=workload.causal)
    textbook, textbook_lse = plain(whole.q, whole.k, whole.v, causal=workload.causal)
    empty = lse == float("-inf")
    return {
        "out": judge(prepared.output, reference, textbook)._asdict(),
        "lse": judge(prepared.lse[~empty], lse[~empty], textbook_lse[~empty])._asdict(),
        "empty_rows_right": bool((prepared.lse[empty] == lse[empty]).all() and not prepared.output[empty].any()),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
