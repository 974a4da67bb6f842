"""One rank of the network tests: two strategies on more and more queries, and what the model makes of them.

``python -m mpi4py cross_over.py REPORT WORKLOAD OVERLAP FIRST SECOND`` on every host; WORKLOAD is JSON without
``queries``, OVERLAP the option, on or off.
Where the model says that both strategies take equally long is found first, from the network and the kernel as they are
between and on these hosts; then both are timed around that number of queries.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from mpi4py import MPI

from streaming_attention import models
from streaming_attention.bandwidth.network import LONG, SHORT, Probe, prepare_probe
from streaming_attention.distributed.choose import Network, Rates, costs
from streaming_attention.distributed.holdings import holding_of
from streaming_attention.inputs import make_inputs
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

AROUND = (0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0)
"""Numbers of queries that are timed, in units of the expected one."""
CALLS = 15
"""Of which the fastest counts, of the network, the kernel and the strategies alike: the hosts share a few cores, on
which other things run as well, and the model speaks of hosts with cores of their own."""
COPIED = 2**22


def main(report: str, workload: str, overlap: str, *pair: str) -> None:
    comm = MPI.COMM_WORLD
    shape = Workload("crossing", queries=1, **json.loads(workload))
    network = probe_network(comm)
    rates = probe_kernel(replace(shape, queries=shape.keys // 4), comm)

    def model(workload: Workload) -> list[float]:
        return [costs(name, workload, comm.size, network, rates, overlap == "on").seconds for name in pair]

    expected = comm.bcast(find_crossing(shape, model))
    counts = sorted({max(1, round(factor * expected)) for factor in AROUND})
    workloads = [replace(shape, queries=queries) for queries in counts]
    timed = zip(workloads, time_all(workloads, pair, overlap, comm), strict=True)
    points = [{"queries": one.queries, "measured": seconds, "predicted": model(one)} for one, seconds in timed]
    hosts = comm.allgather(socket.gethostname())
    if comm.rank == 0:
        found = {"hosts": hosts, "network": vars(network), "rates": vars(rates), "expected": expected, "points": points}
        Path(report).write_text(json.dumps(found))


def probe_network(comm) -> Network:
    """A step of a ring, short and long, as the ceilings of a layout have it."""
    values = []
    for probe in (Probe("shift", SHORT), Probe("shift", LONG)):
        exchange = prepare_probe(probe, comm)
        values.append(probe.value(fastest_of(exchange, comm), comm.size))
        assert exchange.error() == 0
    return Network(latency=values[0] * 1e-6, bandwidth=values[1] * 1e9)


def probe_kernel(shape: Workload, comm) -> Rates:
    """What one rank computes and copies while all do."""
    share = replace(shape, keys=-(-shape.keys // comm.size))
    prepared = METHODS["streaming"].load()(make_inputs(share, 1), 1, None, {})
    gflops = models.flops(share) / fastest_of(prepared.run, comm) / 1e9
    prepared.close()
    source, target = np.ones(COPIED), np.ones(COPIED)
    gbs = 2 * source.nbytes / fastest_of(lambda: np.copyto(target, source), comm) / 1e9
    return Rates(gflops, gbs)


def find_crossing(shape: Workload, model) -> float:
    """Number of queries at which the model's costs of both strategies are equal: bisection, the second grows faster."""

    def ahead(queries: int) -> float:
        first, second = model(replace(shape, queries=queries))
        return first - second

    low, high = 1, 64 * shape.keys
    assert ahead(low) > 0 > ahead(high), "the strategies don't cross"
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if ahead(middle) > 0 else (low, middle)
    return float(low)


def time_all(workloads: list[Workload], pair, overlap: str, comm) -> list[list[float]]:
    """Seconds of both strategies on every workload, all of them in turn."""
    calls = [prepare(workload, strategy, overlap, comm) for workload in workloads for strategy in pair]
    rounds = [[once(call.run, comm) for call in calls] for _ in range(CALLS)]
    for call in calls:
        call.close()
    fastest = np.min(rounds, axis=0).reshape(len(workloads), len(pair))
    return fastest.tolist()


def prepare(workload: Workload, strategy: str, overlap: str, comm):
    inputs = make_inputs(workload, 1, holding_of(strategy, workload, comm.rank, comm.size))
    return METHODS["streaming"].load(comm.size)(inputs, 1, comm, {"strategy": strategy, "overlap": overlap})


def fastest_of(call, comm) -> float:
    call()
    return min(once(call, comm) for _ in range(CALLS))


def once(call, comm) -> float:
    """Seconds until the slowest rank has finished."""
    comm.Barrier()
    begin = time.perf_counter()
    call()
    return comm.allreduce(time.perf_counter() - begin, op=MPI.MAX)


if __name__ == "__main__":
    main(*sys.argv[1:])
