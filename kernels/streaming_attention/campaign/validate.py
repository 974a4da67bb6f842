"""The gate: a method is run on small, awkward problems and judged by the oracle before anything of it is timed."""

from __future__ import annotations

import functools
import time
from dataclasses import replace

from streaming_attention.campaign.accuracy import Examiner, check_rows
from streaming_attention.campaign.contender import describe_error
from streaming_attention.campaign.environment import describe_job, now
from streaming_attention.campaign.process import Process
from streaming_attention.distributed.team import Team
from streaming_attention.inputs import make_inputs
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS, Choice
from streaming_attention.workload import Workload

_BASE = Workload("gate", heads=2, kv_heads=2, queries=1, keys=1, head_dim=64)
CASES = {
    "one key": _BASE,
    "one query": replace(_BASE, keys=1000, head_dim=128),
    "one query, long": replace(_BASE, keys=20_000, heads=1, kv_heads=1, head_dim=128),
    "one query, grouped": replace(_BASE, keys=777, heads=6, head_dim=80),
    "square": replace(_BASE, queries=130, keys=130),
    "square, causal": replace(_BASE, queries=257, keys=257, head_dim=128, causal=True),
    "batch, grouped, causal": replace(_BASE, batch=2, heads=6, queries=65, keys=129, causal=True),
    "odd sizes": replace(_BASE, batch=2, heads=3, kv_heads=1, queries=33, keys=71, head_dim=59, causal=True),
    "more queries than keys": replace(_BASE, queries=40, keys=9, causal=True),
}
"""Small enough for a second in all, awkward enough to see a missing rescale, mask, tail, group or empty row."""


def validate_method(job: dict, team: Team, process: Process) -> dict:
    """Judge one method and return the gate's record, unsealed; a wrong method is a result, not a failure.

    Parameters
    ----------
    job : dict
        ``method, dtype, mode, options`` (a list of option sets), ``layout``, and the head of the record.
    """
    begin, started = time.perf_counter(), now()
    method = METHODS[job["method"]]
    missing = method.available()
    cases = [] if missing else list(_judge_all(job, team))
    failed = [f"{case['name']}: {case['reason']}" for case in cases if not case["passed"]]
    status = "infeasible" if missing else "incorrect" if failed else "passed"
    return {
        "schema": 1,
        "kind": "gate",
        **{key: job[key] for key in ("id", "campaign", "method", "dtype", "mode", "options", "layout")},
        **{key: job[key] for key in ("log", "repeat_command")},
        "started": started,
        "seconds": time.perf_counter() - begin,
        "environment": describe_job(team, process),
        "sources_digest": method.digest(),
        "status": status,
        "reason": missing or "; ".join(failed) or None,
        "cases": cases,
    }


def _judge_all(job: dict, team: Team):
    threads = [job["layout"]["threads"]] if team.size > 1 else sorted({1, job["layout"]["threads"]})
    for options in job["options"]:
        choice = Choice(job["method"], options)
        for count in threads:
            for name, case in CASES.items():
                workload = replace(case, dtype=job["dtype"])
                layout = replace(Layout(**job["layout"]), threads=count)
                if METHODS[choice.method].infeasible(workload, layout, 2**62, options) is None:
                    yield _judge(name, workload, choice, layout, team)


def _judge(name: str, workload: Workload, choice: Choice, layout: Layout, team: Team) -> dict:
    threads = layout.threads
    label = f"{name} ({choice.label}, {threads} thread{'s'[: threads > 1]}, {team.size} rank{'s'[: team.size > 1]})"
    case = {"name": label, "workload": workload.as_dict(), "threads": threads, "ranks": team.size}
    try:
        verdict = team.agree(_verdict(workload, choice, layout, team))
    except Exception as error:
        if team.size > 1:  # the others wait for this rank: the job ends with its error
            raise
        return {**case, "passed": False, "reason": f"{type(error).__name__}: {error}", "error": None}
    reason = None if verdict["passed"] else describe_error(verdict)
    return {**case, "passed": verdict["passed"], "reason": reason, "error": verdict}


def _verdict(workload: Workload, choice: Choice, layout: Layout, team: Team) -> dict | None:
    method = METHODS[choice.method]
    inputs = make_inputs(workload, 1, method.holding(workload, layout, team.rank, choice.options))
    prepared = method.load(team.size)(inputs, layout.threads, team.comm, choice.options)
    prepared.run()
    found = prepared.rows(check_rows(workload, seed=1))
    verdict = _examiner(workload).judge(found[0]) if team.rank == 0 else None
    prepared.close()
    return verdict


@functools.cache
def _examiner(workload: Workload) -> Examiner:
    """The same for all options."""
    return Examiner(workload, seed=1)
