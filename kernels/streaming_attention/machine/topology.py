"""The shape of a machine: nodes, sockets, cores, hardware threads, NUMA nodes, caches and memory.

A :class:`Machine` is what a plan works with, detected here or described in the config; the functions on CPU numbers
are what a rank is bound with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streaming_attention.machine import sysfs
from streaming_attention.machine.cgroup import cpu_quota, memory_limit_bytes

_GIB = 2**30


class TopologyError(RuntimeError):
    """The machine can't be read: not one usable CPU is to be seen."""


@dataclass(frozen=True)
class Cache:
    """One kind of cache on a socket.

    Parameters
    ----------
    level : int
        1 is nearest to the core.
    kind : {"data", "instruction", "unified"}
    size_bytes, line_bytes : int
        Of one instance.
    shared_by : int
        Hardware threads that share an instance.
    instances : int
        Instances that the socket's usable CPUs reach.
    """

    level: int
    kind: str
    size_bytes: int
    line_bytes: int
    shared_by: int
    instances: int


@dataclass(frozen=True)
class Machine:
    """What there is to compute on: equal nodes of equal sockets.

    Parameters
    ----------
    cores_per_socket : int
        Physical cores that may be used.
    memory_gib : float
        Memory of one node in GiB, or less where a limit holds.
    nodes, sockets_per_node, threads_per_core, numa_per_socket : int
    caches : tuple of Cache
        Nearest first; empty where unknown.
    """

    cores_per_socket: int
    memory_gib: float
    nodes: int = 1
    sockets_per_node: int = 1
    threads_per_core: int = 1
    numa_per_socket: int = 1
    caches: tuple[Cache, ...] = ()

    @property
    def cores_per_node(self) -> int:
        return self.sockets_per_node * self.cores_per_socket

    @property
    def cores(self) -> int:
        return self.nodes * self.cores_per_node

    @property
    def memory_bytes(self) -> int:
        """Of one node."""
        return int(self.memory_gib * _GIB)

    def as_config(self) -> dict:
        """The mapping that, given as ``machine:`` in a config, describes this machine (caches aside)."""
        names = ("nodes", "sockets_per_node", "cores_per_socket", "threads_per_core", "numa_per_socket", "memory_gib")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        counts = [(self.nodes, "node"), (self.sockets_per_node, "socket"), (self.cores_per_socket, "core")]
        if self.threads_per_core > 1:
            counts.append((self.threads_per_core, "hardware thread"))
        shape = " x ".join(f"{count} {noun}" + ("" if count == 1 else "s") for count, noun in counts)
        return f"{shape}, {self.memory_gib:g} GiB a node"


def this_machine() -> Machine:
    """The machine this process runs on, as far as the process may use it.

    On Linux its affinity mask counts; elsewhere only the number of CPUs and the memory are known.
    """
    if hasattr(os, "sched_getaffinity"):
        return detect("/", os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(cores_per_socket=os.cpu_count() or 1, memory_gib=_gib(memory))


def detect(root: str | os.PathLike = "/", allowed: Iterable[int] | None = None) -> Machine:
    """Read the machine that the files below ``root`` describe.

    Parameters
    ----------
    root : path
        Where ``sys`` and ``proc`` are.
    allowed : iterable of int, optional
        CPUs that the process may use; all that are online unless given.

    Returns
    -------
    Machine
        With one node. Where sockets differ in usable cores, the largest part in which they don't; a CPU quota of the
        control group lowers the cores further.

    Raises
    ------
    TopologyError
        No CPU is online and allowed.
    """
    root = Path(root)
    cores = sorted(socket_cores(root, allowed), key=len, reverse=True)
    sockets, cores_per_socket = _largest_equal_part([len(socket) for socket in cores])
    smt = min(len(core) for socket in cores[:sockets] for core in socket)
    quota = cpu_quota(root)
    if quota is not None and quota < sockets * cores_per_socket:
        sockets, cores_per_socket = _within_quota(max(1, int(quota)), cores_per_socket, sockets)
        smt = 1
    cpus = [[cpu for core in socket for cpu in core] for socket in cores[:sockets]]
    nodes = sysfs.numa_nodes(root)
    return Machine(
        cores_per_socket=cores_per_socket,
        memory_gib=_gib(_memory_bytes(root)),
        sockets_per_node=sockets,
        threads_per_core=smt,
        numa_per_socket=max(len({nodes.get(cpu, 0) for cpu in socket}) for socket in cpus),
        caches=_caches(root, cpus[0]),
    )


def socket_cores(
    root: str | os.PathLike = "/", allowed: Iterable[int] | None = None
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Allowed CPUs by socket and physical core: ``result[socket][core]`` are the hardware threads of one core.

    Sockets without an allowed CPU are left out.

    Raises
    ------
    TopologyError
        No CPU is online and allowed.
    """
    root = Path(root)
    online = sysfs.online_cpus(root)
    cpus = sorted(online if allowed is None else online & set(allowed))
    if not cpus:
        raise TopologyError(f"{root}: none of the online CPUs {sorted(online)} is allowed to this process")
    sockets: dict[int, dict[int, list[int]]] = {}
    for cpu in cpus:
        cores = sockets.setdefault(sysfs.socket(root, cpu), {})
        cores.setdefault(sysfs.core(root, cpu), []).append(cpu)
    return tuple(tuple(map(tuple, sockets[socket].values())) for socket in sorted(sockets))


def siblings_last(cores: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """CPUs of some cores: one of each core first, their SMT siblings after them."""
    cores = tuple(cores)
    most = max(map(len, cores), default=0)
    return tuple(core[thread] for thread in range(most) for core in cores if thread < len(core))


def socket_of(cpus: Iterable[int], root: str | os.PathLike = "/") -> int | None:
    """Socket that all these CPUs belong to; None where they belong to several."""
    return _only({sysfs.socket(Path(root), cpu) for cpu in cpus})


def numa_node_of(cpus: Iterable[int], root: str | os.PathLike = "/") -> int | None:
    """NUMA node that all these CPUs belong to; None where they belong to several."""
    nodes = sysfs.numa_nodes(Path(root))
    return _only({nodes.get(cpu, 0) for cpu in cpus})


def last_level_cache_bytes(cpus: Iterable[int], root: str | os.PathLike = "/") -> int:
    """Size of all last-level caches that these CPUs reach, each instance counted once; 0 where unknown."""
    data = [[entry for entry in sysfs.caches(Path(root), cpu) if entry.kind != "instruction"] for cpu in cpus]
    return sum(cache.size_bytes for cache in {entries[-1] for entries in data if entries})


def _caches(root: Path, cpus: list[int]) -> tuple[Cache, ...]:
    """Caches of a socket, told by its first CPU and counted over all."""
    instances = {entry for cpu in cpus for entry in sysfs.caches(root, cpu)}
    return tuple(
        Cache(
            *entry[:4],
            shared_by=len(entry.sharing),
            instances=sum((other.level, other.kind) == (entry.level, entry.kind) for other in instances),
        )
        for entry in sysfs.caches(root, cpus[0])
    )


def _largest_equal_part(cores: list[int]) -> tuple[int, int]:
    """(sockets, cores on each) with most cores in all, of sockets sorted from most cores to fewest."""
    parts = [(count, fewest) for count, fewest in enumerate(cores, start=1)]
    return max(parts, key=lambda part: part[0] * part[1])


def _within_quota(cpus: int, cores: int, sockets: int) -> tuple[int, int]:
    """(sockets, cores on each) that a quota of so many CPUs keeps busy: one socket if it can hold them."""
    return (1, cpus) if cpus <= cores else (sockets, cpus // sockets)


def _memory_bytes(root: Path) -> int:
    """Memory that may be filled: what is there, or a control group's limit; 1 GiB where nothing is known."""
    known = [size for size in (sysfs.memory_bytes(root), memory_limit_bytes(root)) if size is not None]
    return min(known, default=_GIB)


def _gib(size: int) -> float:
    """In GiB, rounded down to hundredths: easy to read, and never more than there is."""
    return size * 100 // _GIB / 100


def _only(values: set[int]) -> int | None:
    return values.pop() if len(values) == 1 else None
