"""What a layout could do at best: STREAM, GEMM, the peak of the arithmetic and, over ranks, the network; all at once.

Ceilings belong to a layout. A bandwidth found on one rank says nothing about sixteen that share a memory controller,
so all ranks run together and the rate is their work over the time of the slowest (J. McCalpin, "Memory bandwidth and
machine balance in current high performance computers", 1995, for the kernels and the rules).
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable

from streaming_attention.bandwidth import gemm, network, peak, stream
from streaming_attention.campaign.environment import describe_job, now
from streaming_attention.campaign.jit import compile_timer
from streaming_attention.campaign.process import Process
from streaming_attention.campaign.protocol import Protocol, Sampler
from streaming_attention.distributed.team import Team
from streaming_attention.machine import affinity, topology

CACHE_MULTIPLE = 4
"""Every STREAM array is this many times the last-level caches in use: McCalpin's rule."""
FEWEST_ELEMENTS = 8_000_000
"""Size of an array where no cache size is known: 4 times a 16 MB cache, in float64."""
GEMM_SIZE = 2048


def measure_ceilings(job: dict, team: Team, process: Process) -> dict:
    """Measure every ceiling of a layout and return the record, unsealed."""
    begin, started = time.perf_counter(), now()
    protocol = Protocol.from_dict(job["protocol"])
    elements = stream_elements(team)
    entries = [_stream(name, elements, protocol, team, process) for name in stream.KERNELS]
    entries.append(_gemm(protocol, team, process))
    entries += [_peak(name, protocol, team, process) for name in peak.available_peaks()]
    if team.size > 1:
        entries += [_network(probe, protocol, team, process) for probe in network.PROBES]
    return {
        "schema": 1,
        "kind": "ceilings",
        **{key: job[key] for key in ("id", "campaign", "layout", "protocol", "log", "repeat_command")},
        "started": started,
        "seconds": time.perf_counter() - begin,
        "environment": describe_job(team, process),
        "ceilings": entries,
    }


def stream_elements(team: Team) -> int:
    """Elements of each rank's arrays, so that one array of all ranks of a host is 4 times the caches they use."""
    ranks = team.gather((socket.gethostname(), affinity.allowed_cpus()))
    here = [cpus for host, cpus in ranks if host == socket.gethostname()]
    cache = topology.last_level_cache_bytes({cpu for cpus in here for cpu in cpus})
    return max(team.gather(max(FEWEST_ELEMENTS, -(-CACHE_MULTIPLE * cache // len(here) // stream.ITEM_BYTES))))


def _stream(name: str, elements: int, protocol: Protocol, team: Team, process: Process) -> dict:
    entry = {"name": name, "unit": "GB/s", "elements": elements, "work_per_call": stream.bytes_per_call(name, elements)}
    threads = process.layout.threads
    return _measured(
        lambda: stream.prepare_stream(name, elements, threads), entry, _together(entry, team), protocol, team, process
    )


def _gemm(protocol: Protocol, team: Team, process: Process) -> dict:
    entry = {
        "name": "gemm_fp32",
        "unit": "GFLOP/s",
        "elements": GEMM_SIZE,
        "work_per_call": gemm.flops_per_call(GEMM_SIZE),
    }
    threads = process.layout.threads
    return _measured(
        lambda: gemm.prepare_gemm(GEMM_SIZE, threads), entry, _together(entry, team), protocol, team, process
    )


def _peak(name: str, protocol: Protocol, team: Team, process: Process) -> dict:
    threads = process.layout.threads
    work = peak.flops_per_call(name, threads)
    entry = {"name": name, "unit": "GFLOP/s", "elements": peak.ROUNDS, "work_per_call": work}
    return _measured(lambda: peak.prepare_peak(name, threads), entry, _together(entry, team), protocol, team, process)


def _together(entry: dict, team: Team) -> Callable[[float], float]:
    """Seconds of a call to the rate of all ranks together, in 1e9 per second."""
    work = entry["work_per_call"] * team.size / 1e9
    return lambda seconds: work / seconds


def _network(probe: network.Probe, protocol: Protocol, team: Team, process: Process) -> dict:
    """What one rank sees while all exchange, in microseconds or GB/s."""
    entry = {
        "name": probe.name,
        "unit": probe.unit,
        "elements": probe.message_bytes // network.ITEM_BYTES,
        "work_per_call": probe.message_bytes * probe.messages(team.size),
    }

    def value(seconds: float) -> float:
        return probe.value(seconds, team.size)

    return _measured(lambda: network.prepare_probe(probe, team.comm), entry, value, protocol, team, process)


def _measured(
    prepare: Callable, entry: dict, value: Callable[[float], float], protocol: Protocol, team: Team, process: Process
) -> dict:
    """The entry with its samples, as ``value`` makes them of seconds; none unless every rank's result is right."""
    with compile_timer() as durations:
        ceiling = prepare()
        ceiling()
    process.crews.muster()
    with process.seated():
        timing = Sampler(protocol, team).run({entry["name"]: [("compute", ceiling)]})[entry["name"]]
    error = team.maximum([ceiling.error()])[0]
    ceiling.close()
    right = error <= ceiling.tolerance
    return entry | {
        "status": "passed" if right else "incorrect",
        "reason": None if right else f"relative error {error:.2e} of the result, allowed {ceiling.tolerance:.2e}",
        "samples": [value(seconds) for seconds in timing.samples] if right else [],
        "error": error if math.isfinite(error) else None,
        "jit_seconds": sum(durations),
    }
