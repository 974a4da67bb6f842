"""What Linux tells about its CPUs below ``/sys`` and ``/proc``, one fact a function.

``root`` is where ``sys`` and ``proc`` are, so that tests can emulate a machine. Every file may be missing (containers,
virtual machines, ARM): each function says what it then assumes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_CPUS = Path("sys/devices/system/cpu")
_NODES = Path("sys/devices/system/node")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class CacheEntry(NamedTuple):
    """A cache as one CPU sees it; CPUs that see the same instance have equal entries."""

    level: int
    kind: str
    size_bytes: int
    line_bytes: int
    sharing: frozenset[int]


def online_cpus(root: Path) -> set[int]:
    """CPUs that are switched on; from ``/proc/cpuinfo`` where ``/sys`` has no list."""
    listed = _read(root / _CPUS / "online")
    if listed:
        return parse_cpu_list(listed)
    lines = (_read(root / "proc/cpuinfo") or "").splitlines()
    return {int(line.split(":")[1]) for line in lines if line.split(":")[0].strip() == "processor"}


def socket(root: Path, cpu: int) -> int:
    """Socket of a CPU; 0 where unknown (some ARM kernels say -1)."""
    return max(0, int(_read(root / _CPUS / f"cpu{cpu}/topology/physical_package_id") or 0))


def core(root: Path, cpu: int) -> int:
    """The lowest CPU on the same physical core, a name that is unique on the node as ``core_id`` is not.

    A CPU of which no sibling is known is a core of its own.
    """
    topology = root / _CPUS / f"cpu{cpu}/topology"
    listed = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list")
    return min(parse_cpu_list(listed)) if listed else cpu


def numa_nodes(root: Path) -> dict[int, int]:
    """NUMA node by CPU; empty where unknown."""
    lists = {path.parent.name: _read(path) or "" for path in (root / _NODES).glob("node[0-9]*/cpulist")}
    return {cpu: int(node.removeprefix("node")) for node, listed in lists.items() for cpu in parse_cpu_list(listed)}


def caches(root: Path, cpu: int) -> list[CacheEntry]:
    """Caches of a CPU, nearest first; without those whose level, kind or size is unknown."""
    entries = []
    for index in (root / _CPUS / f"cpu{cpu}/cache").glob("index[0-9]*"):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if level and kind and size:
            line = int(_read(index / "coherency_line_size") or 64)
            sharing = parse_cpu_list(_read(index / "shared_cpu_list") or str(cpu))
            entries.append(CacheEntry(int(level), kind.lower(), _bytes(size), line, frozenset(sharing)))
    return sorted(entries)


def memory_bytes(root: Path) -> int | None:
    """Physical memory; None where unknown."""
    lines = (_read(root / "proc/meminfo") or "").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)


def parse_cpu_list(text: str) -> set[int]:
    """The kernel's CPU list format as a set: ``"0-2,8"`` is {0, 1, 2, 8}."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _bytes(text: str) -> int:
    unit = _UNITS.get(text[-1].upper(), 1)
    return int(text.rstrip("KMGkmg")) * unit


def _read(path: Path) -> str | None:
    """Stripped content, or None where it is missing, unreadable or empty."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
