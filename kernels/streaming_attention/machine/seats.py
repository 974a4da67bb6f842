"""A CPU for every thread: where a pool's helpers wake up, and where all threads stay while something is measured.

Left alone, Linux may wake a helper on the CPU of the thread that wakes it and keep both there for tens of milliseconds
while the CPU beside them idles: a prefill of 10 ms took 10.8 ms on two threads, with seats 5.2 (kernel 6.18, a virtual
machine of 2 CPUs). Libraries whose threads spin between calls don't see it; threads that sleep, as they should, do.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from streaming_attention.machine.affinity import allowed_cpus
from streaming_attention.machine.topology import siblings_last, socket_cores

_TASKS = Path("/proc/self/task")


def thread_ids() -> set[int]:
    """Kernel ids of this process's threads; empty where the system can't say."""
    return {int(entry.name) for entry in _TASKS.iterdir()} if _TASKS.is_dir() else set()


def current_cpu() -> int | None:
    """CPU that the calling thread is on; None where the system can't say."""
    ask = _getcpu()
    return ask() if ask else None


class Seats:
    """The CPUs of this process in the order in which threads should fill them.

    Parameters
    ----------
    cpus : sequence of int, optional
        Those the process may use unless given, SMT siblings last.
    """

    def __init__(self, cpus: Sequence[int] | None = None):
        self.cpus = tuple(_fill_order() if cpus is None else cpus)
        self._places = {cpu: place for place, cpu in enumerate(self.cpus)}

    def beside(self, cpu: int | None, number: int) -> int:
        """CPU for helper `number` (from 1) of a caller on `cpu`; no helper gets the caller's while there are others."""
        return self.cpus[(self._places.get(cpu, 0) + number) % len(self.cpus)]


def invite(thread: int, cpu: int) -> bool:
    """Let a sleeping thread wake up on a CPU; :func:`release` gives it back its freedom.

    False for a thread that someone has bound to one CPU already: it stays there.
    """
    with suppress(OSError):  # it has ended, or a sandbox forbids the call: it runs where it happens to wake
        if len(os.sched_getaffinity(thread)) > 1:
            os.sched_setaffinity(thread, {cpu})
            return True
    return False


def release(thread: int, cpus: Sequence[int]) -> None:
    """Allow a thread these CPUs again."""
    with suppress(OSError):
        os.sched_setaffinity(thread, cpus)


class Crews:
    """The threads that libraries started, by library, as far as they appeared between two looks.

    Examples
    --------
    >>> crews = Crews()
    >>> import numpy  # starts the threads of its BLAS
    >>> crews.muster()
    """

    def __init__(self):
        self._known = thread_ids()
        self.crews: list[list[int]] = []
        self.bound = 0
        """Threads that were bound the last time, the caller among them."""

    def muster(self) -> None:
        """Take the threads that are new as one crew."""
        new = thread_ids() - self._known
        self._known |= new
        if new:
            self.crews.append(sorted(new))

    @contextmanager
    def seated(self) -> Iterator[None]:
        """Bind the caller to the first CPU of the process and each crew's threads to one CPU each, for a while.

        A crew as large as the process has CPUs works while its caller waits and fills all of them; one smaller by one
        works beside its caller. Other crews are left as they are.
        """
        cpus = _fill_order()
        bound = {os.getpid(): cpus[0]} if _TASKS.is_dir() else {}
        for crew in self.crews:
            if len(crew) in (len(cpus), len(cpus) - 1):
                bound |= zip(crew, cpus[len(cpus) - len(crew) :], strict=True)
        for thread, cpu in bound.items():
            release(thread, {cpu})
        try:
            self.bound = len(bound)
            yield
        finally:
            for thread in bound:
                release(thread, cpus)


@cache
def _getcpu():
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None


def _fill_order() -> tuple[int, ...]:
    allowed = allowed_cpus()
    if not hasattr(os, "sched_getaffinity"):
        return tuple(allowed)
    return siblings_last(core for socket in socket_cores("/", allowed) for core in socket)
