"""What the commands print as JSON: the same answers, in keys that moved between releases.

From 23.02 on numbers may be ``{"set": ..., "infinite": ..., "number": ...}``, states are lists, and ``scontrol`` speaks
JSON too. 22.05 has it in part, ignores every filter and gets exit codes wrong, so its text is asked instead. JSON of a
partition does not say whether it is the default one: that comes from the text of every release.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from streaming_attention.machine.slurm.commands import SlurmError, run
from streaming_attention.machine.slurm.model import Account, Node, QueuedJob
from streaming_attention.machine.slurm.text import partitions

__all__ = ["SINCE", "accounts", "nodes", "partitions", "queue"]

SINCE = (23, 2)
"""The first release whose JSON is asked for."""

_OVER = {
    "completed",
    "failed",
    "cancelled",
    "timeout",
    "node_fail",
    "out_of_memory",
    "boot_fail",
    "deadline",
    "preempted",
}


def nodes() -> list[Node]:
    """Every node, from ``scontrol``."""
    return parse_nodes(run("scontrol", "show", "nodes", "--json"))


def queue() -> list[QueuedJob]:
    """Every job that waits or runs, from ``squeue``."""
    return parse_queue(run("squeue", "--json"))


def accounts(job_ids: Iterable[str]) -> list[Account]:
    """What ``sacct`` knows of these jobs."""
    chosen = set(job_ids)
    return parse_accounts(run("sacct", "--json", "-j", ",".join(sorted(chosen))), chosen) if chosen else []


def parse_nodes(text: str) -> list[Node]:
    """Nodes of ``scontrol show nodes --json``, and of ``sinfo --json`` of 22.05.

    Raises
    ------
    SlurmError
        It is no JSON, or lacks a key.
    """
    return _parsed(text, "nodes", _node)


def parse_queue(text: str) -> list[QueuedJob]:
    """Jobs of ``squeue --json`` that are not over; 22.05 lists those, too."""
    return [job for job in _parsed(text, "jobs", _queued) if job.state not in _OVER]


def parse_accounts(text: str, chosen: set[str] | None = None) -> list[Account]:
    """Jobs of ``sacct --json``, only the chosen ones if given."""
    return [job for job in _parsed(text, "jobs", _account) if chosen is None or job.id in chosen]


def _parsed(text: str, key: str, parse) -> list:
    try:
        return [parse(entry) for entry in json.loads(text)[key]]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise SlurmError(f"SLURM's JSON of {key} is not understood: {error!r}") from error


def _node(entry: dict) -> Node:
    state, *flags = [*_words(entry["state"]), *_words(entry.get("state_flags", []))]
    return Node(
        name=entry["name"],
        state=state,
        flags=tuple(flags),
        sockets=entry["sockets"],
        cores_per_socket=entry["cores"],
        threads_per_core=entry["threads"],
        cpus=entry["cpus"],
        cpus_allocated=entry["alloc_cpus"],
        memory_mb=entry["real_memory"],
        memory_allocated_mb=entry["alloc_memory"],
        features=_names(entry["features"]),
        partitions=_names(entry["partitions"]),
    )


def _queued(entry: dict) -> QueuedJob:
    state = _words(entry["job_state"])[0]
    reason = entry["state_reason"]
    return QueuedJob(
        id=str(entry["job_id"]),
        name=entry["name"],
        user=entry["user_name"],
        state=state,
        partition=entry["partition"],
        nodes=_number(entry["node_count"]) or 0,
        cpus=_number(entry["cpus"]) or 0,
        reason=None if reason == "None" else reason,
        start=_number(entry["start_time"]) or None,
    )


def _account(entry: dict) -> Account:
    time, state = entry["time"], _words(entry["state"]["current"])[0]
    code, signal = _exit(entry["exit_code"])
    peaks = [
        resource["count"]
        for step in entry["steps"]
        for resource in step["tres"]["requested"]["max"]
        if resource["type"] == "mem"
    ]
    return Account(
        id=str(entry["job_id"]),
        name=entry["name"],
        state=state,
        exit_code=code,
        signal=signal,
        elapsed_seconds=_number(time["elapsed"]),
        cpu_seconds=max(_clock(time), sum(_clock(step["time"]) for step in entry["steps"])),
        cpus=next((item["count"] for item in entry["tres"]["allocated"] if item["type"] == "cpu"), 0),
        max_rss_bytes=max(peaks, default=None),
        nodes="" if entry["nodes"] == "None assigned" else entry["nodes"],
        submitted=_number(time["submission"]) or None,
        started=_number(time["start"]) or None,
        ended=_number(time["end"]) or None,
    )


def _clock(time: dict) -> float:
    return time["total"]["seconds"] + time["total"]["microseconds"] / 1e6


def _exit(entry: dict) -> tuple[int, int]:
    """Exit code and signal; up to 23.02 a job that a signal ended has ``"signal": {"signal_id": ...}``."""
    signal = entry.get("signal") or {}
    return _number(entry["return_code"]) or 0, _number(signal.get("id", signal.get("signal_id"))) or 0


def _number(value) -> int | None:
    """A number in either form; None where it is unset or infinite."""
    if isinstance(value, dict):
        return value["number"] if value["set"] and not value["infinite"] else None
    return value


def _words(value) -> list[str]:
    """A state or flags in either form, in small letters."""
    return [word.lower() for word in ([value] if isinstance(value, str) else value)]


def _names(value) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    return tuple(name for name in names if name)
