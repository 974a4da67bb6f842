"""Measure a point: every method that fits its layout, interleaved, checked before and after; one record."""

from __future__ import annotations

import time

from streaming_attention import models
from streaming_attention.bandwidth import stream
from streaming_attention.campaign.accuracy import Examiner, check_rows
from streaming_attention.campaign.ceilings import stream_elements
from streaming_attention.campaign.contender import Contender, Refused, Ring, enter, examine
from streaming_attention.campaign.environment import describe_job, now
from streaming_attention.campaign.process import Process
from streaming_attention.campaign.protocol import Protocol, Sampler
from streaming_attention.campaign.timeline import draw_timeline
from streaming_attention.distributed.team import Team
from streaming_attention.machine import memory
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import Choice
from streaming_attention.workload import Workload


def measure_point(spec: dict, team: Team, process: Process) -> dict:
    """Run one point and return its record, unsealed.

    Parameters
    ----------
    spec : dict
        ``id, campaign, workload, layout, methods, repeat, protocol`` as the plan writes them, and ``refused``:
        methods that the gate has stopped, with the reason; ``log`` and ``repeat_command`` for the record.
    team : Team
        Already bound and of the layout's size.
    process : Process
        Its threads are seated while methods are timed.
    """
    begin, started = time.perf_counter(), now()
    ring = _make_ring(spec, team)
    contenders = [Contender(Choice(entry["method"], entry["options"])) for entry in spec["methods"]]
    for contender in contenders:
        enter(contender, ring)
        process.crews.muster()
    with process.seated():
        _time(contenders, ring)
    _check_again(contenders, ring)
    return {
        "schema": 1,
        "kind": "attention",
        **{key: spec[key] for key in ("id", "campaign", "workload", "layout", "repeat", "log", "repeat_command")},
        "protocol": spec["protocol"],
        "predicted_seconds": spec.get("predicted_seconds"),
        "started": started,
        "seconds": time.perf_counter() - begin,
        "environment": describe_job(team, process),
        "methods": [_entry(contender, ring) for contender in contenders],
    }


def _make_ring(spec: dict, team: Team) -> Ring:
    workload, layout = Workload(**spec["workload"]), Layout(**spec["layout"])
    protocol = Protocol.from_dict(spec["protocol"])
    available = min(team.gather(memory.available_bytes() or 2**62))
    return Ring(
        workload=workload,
        layout=layout,
        protocol=protocol,
        team=team,
        rows=check_rows(workload, protocol.seed),
        examiner=Examiner(workload, protocol.seed) if team.rank == 0 else None,
        refused=spec.get("refused", {}),
        node_memory=available,
    )


def _time(contenders: list[Contender], ring: Ring) -> None:
    running = {contender.choice.label: contender for contender in contenders if contender.status == "passed"}
    evict = _evictor(ring) if ring.protocol.cache == "cold" else None
    timings = Sampler(ring.protocol, ring.team, evict).run(
        {label: contender.prepared.stages for label, contender in running.items()}
    )
    for label, contender in running.items():
        contender.timing = timings[label]
        if ring.team.size > 1:
            contender.timeline = draw_timeline(contender.prepared.stages, ring.team)


def _evictor(ring: Ring):
    """A call that reads as much as fills every cache in use several times over."""
    return stream.prepare_stream("read", stream_elements(ring.team), ring.layout.threads)


def _check_again(contenders: list[Contender], ring: Ring) -> None:
    """Fresh inputs into the same arrays: a method that answered from the last call's leftovers shows."""
    running = [contender for contender in contenders if contender.status == "passed"]
    if not running:
        return
    ring.refill(ring.protocol.seed + 1)
    if ring.team.rank == 0:
        ring.examiner.renew(ring.protocol.seed + 1)
    for contender in running:
        contender.prepared.run()
        try:
            examine(contender, ring, "error_after")
        except Refused as refusal:
            contender.refuse(refusal.status, f"after timing: {refusal.reason}")


def _entry(contender: Contender, ring: Ring) -> dict:
    workload, timing = ring.workload, contender.timing
    passed = contender.status == "passed"
    return {
        "method": contender.choice.method,
        "options": contender.choice.options,
        "label": contender.choice.label,
        "status": contender.status,
        "reason": contender.reason,
        "kernel": contender.kernel,
        "digest": contender.method.digest(),
        "error_before": contender.error_before,
        "error_after": contender.error_after,
        "jit_seconds": contender.jit_seconds,
        "calls_per_sample": timing.calls_per_sample if passed else None,
        "samples": timing.samples,
        "starts": timing.starts,
        "compute": timing.compute,
        "communication": timing.communication,
        "converged": timing.converged if passed else None,
        "memory": contender.memory,
        **({"timeline": contender.timeline} if passed and contender.timeline else {}),
        "flops": models.flops(workload),
        "bytes": models.bytes_moved(workload),
    }
