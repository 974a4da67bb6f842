"""What a process holds in memory: now, and at its peak since the last reset; and on which NUMA node it lies."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import platform
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_MOVE_PAGES = {"x86_64": 279, "aarch64": 239}
"""Number of the system call ``move_pages``, by machine; glibc has no function for it."""


def resident_bytes() -> int | None:
    """Resident memory of this process now; None where ``/proc`` can't say."""
    return _field("VmRSS:")


def peak_bytes() -> int | None:
    """Largest resident memory since the start or the last :func:`reset_peak`; None where ``/proc`` can't say."""
    return _field("VmHWM:")


def reset_peak() -> bool:
    """Start the peak afresh at what is resident now; False where the kernel doesn't allow it.

    Memory that was freed but kept by the allocator is given back first: a new array in it would not raise the peak.
    """
    with contextlib.suppress(AttributeError, OSError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def total_bytes() -> int | None:
    """Physical memory of this host."""
    return _field("MemTotal:", Path("/proc/meminfo"))


def available_bytes() -> int | None:
    """Memory that can be had without swapping, now."""
    return _field("MemAvailable:", Path("/proc/meminfo"))


def nodes_of_pages(address: int, size: int, samples: int = 256) -> list[int] | None:
    """NUMA nodes of some pages of a region, evenly spread; None where the kernel doesn't say.

    Parameters
    ----------
    address, size : int
        Bytes. Pages that nobody has touched yet lie nowhere and are left out.
    samples : int
        Pages to look at, at most.
    """
    first, count = address // mmap.PAGESIZE, -(-size // mmap.PAGESIZE)
    looked_at = [first + number * count // min(count, samples) for number in range(min(count, samples))]
    pages = (ctypes.c_void_p * len(looked_at))(*(page * mmap.PAGESIZE for page in looked_at))
    nodes = (ctypes.c_int * len(looked_at))()
    number = _MOVE_PAGES.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return None
    arguments = 0, ctypes.c_ulong(len(looked_at)), pages, None, nodes, 0
    refused = ctypes.CDLL(None).syscall(number, *arguments) if looked_at else 0
    return None if refused else [node for node in nodes if node >= 0]


def _field(name: str, path: Path | None = None) -> int | None:
    try:
        lines = (path or _STATUS).read_text().splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith(name)), None)
    return int(kib) * 1024 if kib else None
