"""What the commands print as text: the form that every release of SLURM has kept."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from streaming_attention.machine.slurm.commands import SlurmError, run
from streaming_attention.machine.slurm.model import Account, Node, Partition, QueuedJob

QUEUE_FORMAT = "%i|%u|%T|%P|%D|%C|%S|%r|%j"
ACCOUNT_FIELDS = "JobID,State,ExitCode,ElapsedRaw,TotalCPU,AllocCPUS,MaxRSS,NodeList,Submit,Start,End,JobName"
"""Both end with the name, which may hold a bar itself."""

_PAIR = re.compile(r"(?:^|\s)([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_FLAG_SIGNS = {"*": "not_responding", "~": "powered_down", "#": "powering_up", "!": "power_down", "%": "powering_down"}
_FLAG_SIGNS |= {"$": "maintenance", "@": "reboot_requested", "^": "reboot_issued", "-": "planned"}


def nodes() -> list[Node]:
    """Every node, from ``scontrol``."""
    return parse_nodes(run("scontrol", "-o", "show", "node"))


def partitions() -> list[Partition]:
    """Every partition, from ``scontrol``."""
    return parse_partitions(run("scontrol", "-o", "show", "partition"))


def queue() -> list[QueuedJob]:
    """Every job that waits or runs, from ``squeue``."""
    return parse_queue(run("squeue", "-h", "-o", QUEUE_FORMAT))


def accounts(job_ids: Iterable[str]) -> list[Account]:
    """What ``sacct`` knows of these jobs."""
    chosen = ",".join(job_ids)
    return parse_accounts(run("sacct", "-n", "-P", "--units=K", "-j", chosen, "-o", ACCOUNT_FIELDS)) if chosen else []


def parse_nodes(text: str) -> list[Node]:
    """Nodes of ``scontrol -o show node``.

    Raises
    ------
    SlurmError
        A line lacks what every release prints.
    """
    return [_parsed(_node, _pairs(line), line) for line in text.splitlines() if line.startswith("NodeName=")]


def parse_partitions(text: str) -> list[Partition]:
    """Partitions of ``scontrol -o show partition``."""
    return [_parsed(_partition, _pairs(line), line) for line in text.splitlines() if line.startswith("PartitionName=")]


def parse_queue(text: str) -> list[QueuedJob]:
    """Jobs of ``squeue -h -o QUEUE_FORMAT``."""
    return [_parsed(_queued, line.split("|", 8), line) for line in text.splitlines() if line.strip()]


def parse_accounts(text: str) -> list[Account]:
    """Jobs of ``sacct -n -P -o ACCOUNT_FIELDS``, each with the sums and maxima over its steps."""
    rows = [line.split("|", 11) for line in text.splitlines() if line.strip()]
    steps: dict[str, list[list[str]]] = {}
    for row in rows:
        steps.setdefault(row[0].split(".")[0], []).append(row)
    return [_parsed(_account, rows, rows[0]) for rows in steps.values()]


def seconds(text: str) -> float | None:
    """``1-02:03:04``, ``02:03``, ``00:03.593`` in seconds; None for UNLIMITED and the like.

    >>> seconds("1-00:01:00"), seconds("00:03.5"), seconds("UNLIMITED")
    (86460.0, 3.5, None)
    """
    if not re.fullmatch(r"(\d+-)?[\d:.]+", text):
        return None
    days, _, clock = text.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total + 86400 * int(days or 0)


def _parsed(parse, fields, line):
    try:
        return parse(fields)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise SlurmError(f"SLURM printed what is not understood ({error!r}): {line}") from error


def _pairs(line: str) -> dict[str, str]:
    return dict(_PAIR.findall(line))


def _node(fields: dict[str, str]) -> Node:
    state, *flags = fields["State"].split("+")
    signs = state[len(state.rstrip("".join(_FLAG_SIGNS))) :]
    return Node(
        name=fields["NodeName"],
        state=state.removesuffix(signs).lower(),
        flags=(*(_FLAG_SIGNS[sign] for sign in signs), *(flag.lower() for flag in flags)),
        sockets=int(fields["Sockets"]),
        cores_per_socket=int(fields["CoresPerSocket"]),
        threads_per_core=int(fields["ThreadsPerCore"]),
        cpus=int(fields["CPUTot"]),
        cpus_allocated=int(fields["CPUAlloc"]),
        memory_mb=int(fields["RealMemory"]),
        memory_allocated_mb=int(fields["AllocMem"]),
        features=_words(fields["AvailableFeatures"]),
        partitions=_words(fields.get("Partitions", "")),
    )


def _partition(fields: dict[str, str]) -> Partition:
    limit = seconds(fields["MaxTime"])
    return Partition(
        name=fields["PartitionName"],
        state=fields["State"].lower(),
        default=fields["Default"] == "YES",
        limit_seconds=None if limit is None else int(limit),
        nodes=int(fields["TotalNodes"]),
    )


def _queued(fields: list[str]) -> QueuedJob:
    job, user, state, partition, nodes, cpus, start, reason, name = fields
    return QueuedJob(
        id=job,
        name=name,
        user=user,
        state=state.lower(),
        partition=partition,
        nodes=int(nodes.split("-")[0]),
        cpus=int(cpus),
        reason=None if reason == "None" else reason,
        start=_time(start),
    )


def _account(rows: list[list[str]]) -> Account:
    job, state, exit_code, elapsed, cpu, cpus, _, nodes, submit, start, end, name = rows[0]
    code, signal = exit_code.split(":")
    peaks = [_bytes(row[6]) for row in rows if row[6]]
    return Account(
        id=job,
        name=name,
        state=state.split()[0].lower(),
        exit_code=int(code),
        signal=int(signal),
        elapsed_seconds=int(elapsed),
        cpu_seconds=seconds(cpu) or 0.0,
        cpus=int(cpus),
        max_rss_bytes=max(peaks, default=None),
        nodes="" if nodes == "None assigned" else nodes,
        submitted=_time(submit),
        started=_time(start),
        ended=_time(end),
    )


def _words(text: str) -> tuple[str, ...]:
    return () if text in ("", "(null)") else tuple(text.split(","))


def _time(text: str) -> int | None:
    """Local time without a zone, as SLURM prints it, to Unix time."""
    try:
        return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def _bytes(text: str) -> int:
    return int(float(text[:-1]) * _UNITS[text[-1]]) if text[-1] in _UNITS else int(text)
