"""Compile a method ahead of the measurements, so that every job finds its kernels in the JIT cache."""

from __future__ import annotations

import time
from dataclasses import replace

from streaming_attention.campaign.environment import describe_job, now
from streaming_attention.campaign.jit import compile_timer
from streaming_attention.campaign.process import Process
from streaming_attention.distributed.team import Team
from streaming_attention.inputs import make_inputs
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

_SMALL = Workload("compile", heads=2, kv_heads=1, queries=64, keys=64, head_dim=64, causal=True)
SHAPES = (_SMALL, replace(_SMALL, queries=1, causal=False), replace(_SMALL, keys=8192, queries=1))
"""One problem for each code path: rows over threads, one query, keys split over threads."""


def compile_method(job: dict, team: Team, process: Process) -> dict:
    """Run every code path of a method once and return the compile record, unsealed.

    ``jit_seconds`` is what compilers spent (0 when the cache had it all), ``cached_seconds`` the rest of the
    first calls: loading from the cache, importing, running.
    """
    begin, started = time.perf_counter(), now()
    method = METHODS[job["method"]]
    missing = method.available()
    kernels, jit_seconds, seconds = (None, None, None) if missing else _compile(job)
    return {
        "schema": 1,
        "kind": "compile",
        **{key: job[key] for key in ("id", "campaign", "method", "dtype", "layout", "log", "repeat_command")},
        "started": started,
        "seconds": time.perf_counter() - begin,
        "environment": describe_job(team, process),
        "sources_digest": method.digest(),
        "status": "infeasible" if missing else "passed",
        "reason": missing,
        "jit_seconds": jit_seconds,
        "cached_seconds": seconds,
        "kernel": kernels,
    }


def _compile(job: dict) -> tuple[str, float, float]:
    method, layout = METHODS[job["method"]], Layout(**job["layout"])
    kernels, begin = [], time.perf_counter()
    with compile_timer() as durations:
        for shape in SHAPES:
            workload = replace(shape, dtype=job["dtype"])
            if method.infeasible(workload, layout):
                continue
            prepared = method.load(1)(make_inputs(workload, seed=1), layout.threads, None, {})
            prepared.run()
            kernels.append(prepared.kernel)
            prepared.close()
    jit_seconds = sum(durations)
    return ", ".join(dict.fromkeys(kernels)), jit_seconds, time.perf_counter() - begin - jit_seconds
