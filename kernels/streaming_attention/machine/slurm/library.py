"""The same answers from pyslurm, which asks the controller itself.

pyslurm is made for exactly one release of SLURM (X.Y of both must agree), needs that release's library, and is under
the GPL-2.0: it is optional, imported here and nowhere else, and nothing is asked of it that the commands don't tell.
Attributes were renamed between its releases; each is looked up under every name it has had.
"""

from __future__ import annotations

from collections.abc import Iterable

from streaming_attention.machine.slurm.commands import SlurmError
from streaming_attention.machine.slurm.model import Account, Node, Partition, QueuedJob

_OVER = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
)


def load():
    """The pyslurm module.

    Raises
    ------
    SlurmError
        Not installed, made for another release, or its library is not found.
    """
    try:
        import pyslurm
    except Exception as error:  # a wrong libslurm raises what it likes, ImportError among others
        raise SlurmError(f"pyslurm: {error}") from error
    if not hasattr(pyslurm, "Nodes"):
        raise SlurmError(f"pyslurm {getattr(pyslurm, '__version__', '')}: too old, it has no pyslurm.Nodes")
    return pyslurm


def nodes() -> list[Node]:
    """Every node."""
    return [_node(node) for node in _values(load().Nodes.load())]


def partitions() -> list[Partition]:
    """Every partition."""
    return [_partition(partition) for partition in _values(load().Partitions.load())]


def queue() -> list[QueuedJob]:
    """Every job that waits or runs."""
    return [_queued(job) for job in _values(load().Jobs.load()) if job.state not in _OVER]


def accounts(job_ids: Iterable[str]) -> list[Account]:
    """What accounting knows of these jobs."""
    chosen = [int(job) for job in job_ids]
    if not chosen:
        return []
    db = load().db
    return [_account(job) for job in _values(db.Jobs.load(db.JobFilter(ids=chosen)))]


def _values(collection) -> list:
    """A collection was a dict in some releases and a list in others."""
    return list(collection.values()) if hasattr(collection, "values") else list(collection)


def _first(thing, *names: str):
    for name in names:
        if hasattr(thing, name):
            return getattr(thing, name)
    raise SlurmError(f"pyslurm: {type(thing).__name__} has none of {', '.join(names)}")


def _node(node) -> Node:
    state, *flags = node.state.lower().split("+")
    return Node(
        name=node.name,
        state=state,
        flags=tuple(flags),
        sockets=node.sockets,
        cores_per_socket=node.cores_per_socket,
        threads_per_core=node.threads_per_core,
        cpus=node.total_cpus,
        cpus_allocated=_first(node, "allocated_cpus", "alloc_cpus") or 0,
        memory_mb=_first(node, "real_memory_raw", "real_memory"),
        memory_allocated_mb=_first(node, "alloc_memory_raw", "allocated_memory", "alloc_memory") or 0,
        features=tuple(node.available_features or ()),
        partitions=tuple(node.partitions or ()),
    )


def _partition(partition) -> Partition:
    limit = _first(partition, "max_time_limit_raw", "max_time_limit")
    return Partition(
        name=partition.name,
        state=partition.state.lower(),
        default=partition.is_default,
        limit_seconds=limit * 60 if isinstance(limit, int) else None,
        nodes=partition.total_nodes,
    )


def _queued(job) -> QueuedJob:
    reason = job.state_reason
    return QueuedJob(
        id=str(job.id),
        name=job.name,
        user=job.user_name,
        state=job.state.lower(),
        partition=job.partition,
        nodes=job.num_nodes or 0,
        cpus=job.cpus or 0,
        reason=None if reason in (None, "None") else reason,
        start=_first(job, "start_time_raw", "start_time") or None,
    )


def _account(job) -> Account:
    return Account(
        id=str(job.id),
        name=job.name,
        state=job.state.lower(),
        exit_code=job.exit_code or 0,
        signal=job.exit_code_signal or 0,
        elapsed_seconds=job.elapsed_time or 0,
        cpu_seconds=float(job.stats.total_cpu_time or 0),
        cpus=job.cpus or 0,
        max_rss_bytes=job.stats.max_resident_memory or None,
        nodes=job.nodelist or "",
        submitted=job.submit_time or None,
        started=job.start_time or None,
        ended=job.end_time or None,
    )
