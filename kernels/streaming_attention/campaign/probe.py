"""Describe the machine a campaign runs on: the card that the report shows beside every number."""

from __future__ import annotations

import time
from dataclasses import asdict

from streaming_attention.campaign.environment import describe_job, now
from streaming_attention.campaign.process import Process
from streaming_attention.distributed.team import Team
from streaming_attention.machine import topology


def probe_environment(job: dict, team: Team, process: Process) -> dict:
    """Return the environment record of this host, unsealed: topology, caches, memory, versions, variables, commit."""
    begin, started = time.perf_counter(), now()
    return {
        "schema": 1,
        "kind": "environment",
        **{key: job[key] for key in ("id", "campaign", "layout", "log", "repeat_command")},
        "started": started,
        "environment": describe_job(team, process),
        "machine": asdict(topology.this_machine()),
        "seconds": time.perf_counter() - begin,
    }
