"""Who did what when: one call of a method over ranks, stage by stage, after it was timed."""

from __future__ import annotations

import time
from collections.abc import Callable

from streaming_attention.campaign.protocol import Stages
from streaming_attention.distributed.team import Team
from streaming_attention.prepared import COMMUNICATION, COMPUTE, Stage

SHORTEST = 1e-3
"""Share of the call below which a stage is counted but not listed: nobody would see it in a figure."""


def draw_timeline(stages: Stages, team: Team, clock: Callable[[], float] = time.perf_counter) -> list[dict]:
    """Time the stages of one call on every rank; a call before it, untimed, wakes threads and fills caches.

    Every rank's clock starts when it leaves the barrier before the call, so ranks on different hosts can be compared.

    Returns
    -------
    list of dict
        By rank: ``rank``; ``compute`` and ``communication``, the seconds of its stages; ``idle``, from its last stage
        to the end of the slowest rank; ``stages``: ``kind``, ``label``, ``start`` and ``end`` in seconds since the
        barrier. What a rank waits inside a stage of communication, for a message or for a rank that is late, is
        communication.
    """
    stages = [Stage(*stage) for stage in stages]
    for stage in stages:
        stage.run()
    team.barrier()
    origin, events = clock(), []
    for stage in stages:
        start = clock() - origin
        stage.run()
        events.append({"kind": stage.kind, "label": stage.label, "start": start, "end": clock() - origin})
    everyone = team.gather(events)
    end = max((event["end"] for events in everyone for event in events), default=0.0)
    return [_describe(rank, events, end) for rank, events in enumerate(everyone)]


def _describe(rank: int, events: list[dict], end: float) -> dict:
    """A rank's part of a call that ended at ``end``."""
    spent = {kind: sum(e["end"] - e["start"] for e in events if e["kind"] == kind) for kind in (COMPUTE, COMMUNICATION)}
    idle = end - max((event["end"] for event in events), default=0.0)
    long = [event for event in events if event["end"] - event["start"] >= SHORTEST * end]
    return {"rank": rank, **spent, "idle": idle, "stages": long}
