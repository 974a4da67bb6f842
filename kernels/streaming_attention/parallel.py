"""How many threads Numba uses, and that only one parallel region runs at a time.

Numba's ``workqueue``, the threading layer that every wheel has, ends the process when two Python threads enter parallel
regions at once. Every parallel region of this package therefore runs under one lock. A library's number of threads
is a setting of the whole process, so whoever changes it holds the same lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba

LOCK = threading.RLock()
"""Held while a parallel region runs or a library's number of threads is changed."""


def most_threads() -> int:
    """Threads in Numba's pool, which is sized once, at its first use."""
    return numba.config.NUMBA_NUM_THREADS


def check_threads(threads: int) -> None:
    """Raise a ValueError unless Numba's pool has that many threads."""
    if not 1 <= threads <= most_threads():
        raise ValueError(f"threads: {threads} is not from 1 to {most_threads()}, the size of Numba's pool")


@contextmanager
def numba_threads(threads: int) -> Iterator[None]:
    """Run the parallel regions inside on that many threads; the calling thread's own setting returns afterwards."""
    with LOCK:
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def share_out(serial, threaded, threads: int, *arguments) -> None:
    """Run a kernel in its serial or its threaded form.

    Parameters
    ----------
    serial : callable
        ``serial(worker, workers, *arguments)`` does one worker's share.
    threaded : callable
        ``threaded(workers, *arguments)`` does every worker's, each on a thread of its own.
    """
    if threads == 1:
        serial(0, 1, *arguments)
    else:
        with numba_threads(threads):
            threaded(threads, *arguments)
