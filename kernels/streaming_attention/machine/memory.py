"""What a process holds in memory: now, and at its peak since the last reset."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


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


def _field(name: str, path: Path | None = None) -> int | None:
    try:
        lines = (path or _STATUS).read_text().splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith(name)), None)
    return int(kib) * 1024 if kib else None
