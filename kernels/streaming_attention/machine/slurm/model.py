"""Nodes, partitions, queued jobs and finished jobs, as every source of them describes them."""

from __future__ import annotations

from dataclasses import dataclass

READY = ("idle", "mixed", "allocated", "completing")
"""States of a node that runs jobs, now or when those on it are done."""

_AWAY = {
    "drain",
    "not_responding",
    "maintenance",
    "reserved",
    "fail",
    "power_down",
    "powered_down",
    "invalid_reg",
    "future",
}


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Parameters
    ----------
    name : str
    state : str
        In small letters: idle, mixed, allocated, down, ...
    flags : tuple of str
        What qualifies the state, in small letters: drain, not_responding, planned, ...
    sockets, cores_per_socket, threads_per_core : int
    cpus, cpus_allocated : int
        Hardware threads; those that jobs hold.
    memory_mb, memory_allocated_mb : int
    features, partitions : tuple of str
    """

    name: str
    state: str
    flags: tuple[str, ...]
    sockets: int
    cores_per_socket: int
    threads_per_core: int
    cpus: int
    cpus_allocated: int
    memory_mb: int
    memory_allocated_mb: int
    features: tuple[str, ...]
    partitions: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether jobs can be given this node, now or later."""
        return self.state in READY and not _AWAY & set(self.flags)

    @property
    def free(self) -> bool:
        """Whether a job could have the whole node now."""
        return self.usable and self.state == "idle"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sockets, cores of each, threads of each, memory in MB."""
        return self.sockets, self.cores_per_socket, self.threads_per_core, self.memory_mb


@dataclass(frozen=True)
class Partition:
    """A partition: a queue with its nodes.

    Parameters
    ----------
    name, state : str
        The state in small letters: up, down, drain, inactive.
    default : bool
        Where jobs go that name none.
    limit_seconds : int or None
        Longest time limit of a job; None without one.
    nodes : int
    """

    name: str
    state: str
    default: bool
    limit_seconds: int | None
    nodes: int


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or runs.

    ``start`` is the Unix time at which it started or, as far as the scheduler has planned it, will start; ``reason``
    is why it waits, None while it runs.
    """

    id: str
    name: str
    user: str
    state: str
    partition: str
    nodes: int
    cpus: int
    reason: str | None
    start: int | None


@dataclass(frozen=True)
class Account:
    """What accounting knows of a job.

    Parameters
    ----------
    id, name, state : str
        The state in small letters: completed, failed, timeout, cancelled, out_of_memory, node_fail, ...
    exit_code, signal : int
    elapsed_seconds : int
    cpu_seconds : float
        Of all its processes together.
    cpus : int
        Allocated.
    max_rss_bytes : int or None
        Largest resident memory of one task in any step; None where it was not sampled.
    nodes : str
        The node list, such as ``node[1-4]``; empty before it started.
    submitted, started, ended : int or None
        Unix times.
    """

    id: str
    name: str
    state: str
    exit_code: int
    signal: int
    elapsed_seconds: int
    cpu_seconds: float
    cpus: int
    max_rss_bytes: int | None
    nodes: str
    submitted: int | None
    started: int | None
    ended: int | None

    @property
    def efficiency(self) -> float | None:
        """CPU time used over CPU time held, 0 to 1; None for a job that held none."""
        held = self.elapsed_seconds * self.cpus
        return self.cpu_seconds / held if held else None

    @property
    def waited_seconds(self) -> int | None:
        """From submission to start."""
        return None if None in (self.submitted, self.started) else self.started - self.submitted
