"""Ranks of one thread beside threads of one rank, on the same cores, interleaved; medians of ratios.

    mpiexec -n 2 python -m mpi4py benchmarks/ranks.py [--rounds N] [--keys T] [--only CASE] [--strategy NAME ...]

Each round times the first rank alone, with as many threads as there are ranks, then every strategy over all ranks, each
with overlap and without; a ratio is the strategy's time over the mean of the two times alone around it. While one rank
works alone the others sleep. Exposed is the slowest rank's share of the call outside of computing; its least share is
given too, since a rank that waits for a late one counts as communicating. The last ratio is that of the shortest times:
what is left where other programs take a core now and then, which two ranks can't share out and two threads can.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from mpi4py import MPI

from streaming_attention.distributed.strategies import OVERLAPPING, STRATEGIES
from streaming_attention.inputs import make_inputs
from streaming_attention.prepared import COMMUNICATION
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

COMM = MPI.COMM_WORLD
METHOD = METHODS["streaming"]
CASES = {
    "prefill": (Workload("prefill", heads=4, kv_heads=2, head_dim=128, causal=True), 8192, STRATEGIES[1:]),
    "full": (Workload("full", heads=4, kv_heads=2, head_dim=128), 8192, STRATEGIES[1:]),
    "query": (Workload("query", queries=1, head_dim=128), 1 << 20, ("spread",)),
}


def meet() -> None:
    """Wait for all ranks without keeping a core busy."""
    request = COMM.Ibarrier()
    while not request.Test():
        time.sleep(0.001)
    COMM.Barrier()


def once(prepared) -> tuple[float, float]:
    """Seconds of a call and, of those, of communication, on this rank."""
    communicating, begin = 0.0, time.perf_counter()
    for kind, run, *_ in prepared.stages:
        before = time.perf_counter()
        run()
        communicating += (time.perf_counter() - before) * (kind == COMMUNICATION)
    return time.perf_counter() - begin, communicating


def alone(prepared) -> float:
    """Seconds of a call on the first rank, the others asleep."""
    meet()
    seconds = 0.0
    if COMM.rank == 0:
        prepared.run()
        seconds, _ = once(prepared)
    meet()
    return COMM.bcast(seconds)


def together(prepared) -> tuple[float, float, float]:
    """Seconds of the slowest rank; the largest and the least share of communication."""
    meet()
    prepared.run()
    COMM.Barrier()
    seconds, communicating = once(prepared)
    spent = COMM.allgather((seconds, communicating))
    whole = max(one for one, _ in spent)
    return whole, max(two for _, two in spent) / whole, min(two for _, two in spent) / whole


def prepare(workload: Workload, options: dict):
    held = METHOD.distributed_holding(workload, COMM.rank, COMM.size, 1, **METHOD.complete(options))
    return METHOD.load(COMM.size)(make_inputs(workload, 1, held), 1, COMM, options)


def ways(strategies) -> list[dict]:
    without = [{"strategy": name, "overlap": "off"} for name in strategies if name in OVERLAPPING]
    return [{"strategy": name} for name in strategies] + without


def measure(workload: Workload, strategies, rounds: int) -> None:
    single = METHOD.load()(make_inputs(workload, 1), COMM.size, None, {}) if COMM.rank == 0 else None
    calls = {" ".join(way.values()): prepare(workload, way) for way in ways(strategies)}
    found, single_ones = {name: [] for name in calls}, []
    for _ in range(rounds):
        before = alone(single)
        for name, call in calls.items():
            seconds, most, least = together(call)
            after = alone(single)
            found[name].append((2 * seconds / (before + after), most, least, seconds))
            before = after
            single_ones.append(after)
    if COMM.rank == 0:
        for name, values in found.items():
            ratio, most, least, seconds = np.median(values, axis=0)
            best = min(value[3] for value in values) / min(single_ones)
            low, high = np.quantile([value[0] for value in values], [0.25, 0.75])
            print(
                f"{workload.name:8} T = {workload.keys:<8} {name:14} {1e3 * seconds:8.1f} ms  "
                f"{ratio:6.3f} ({low:.3f} to {high:.3f})  exposed {100 * least:4.1f} to {100 * most:4.1f} %  "
                f"shortest {best:6.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keys", type=int, help="T, instead of each case's own")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--strategy", nargs="*", help="these alone")
    arguments = parser.parse_args()
    if COMM.rank == 0:
        print(f"over one rank x {COMM.size} threads: {COMM.size} ranks x 1 thread", flush=True)
    for name, (workload, keys, strategies) in CASES.items():
        if arguments.only in name:
            keys = arguments.keys or keys
            queries = keys if workload.name != "query" else 1
            shape = {**workload.as_dict(), "keys": keys, "queries": queries}
            measure(Workload(**shape), arguments.strategy or strategies, arguments.rounds)


if __name__ == "__main__":
    main()
