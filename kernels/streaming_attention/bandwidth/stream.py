"""STREAM: what the memory system sustains, and the read-only sum that bounds a query over a cache of keys.

copy, scale, add and triad are McCalpin's ("Memory bandwidth and machine balance in current high performance
computers", 1995): float64, arrays far larger than the caches, each initialised by the thread that will use it, so that
its pages lie on that thread's NUMA node. Bytes are counted as STREAM does: what the loop reads plus what it writes.
The line that a store first has to read (write-allocate) isn't counted, so copy and scale really move up to 1.5 times,
add and triad up to 1.33 times, what they report.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from streaming_attention.bandwidth.ceiling import Ceiling
from streaming_attention.parallel import check_threads, share_out

ITEM_BYTES = 8
"""Bytes of one element (float64)."""

KERNELS = {"copy": 2, "scale": 2, "add": 3, "triad": 3, "read": 1}
"""Arrays that each kernel reads or writes."""

_CODES = {name: code for code, name in enumerate(KERNELS)}
_COPY, _SCALE, _ADD, _TRIAD, _READ = _CODES.values()
_FACTOR = 3.0
_PERIOD = 13  # values are small integers that repeat with this period: every result is exact, in any order
_CHECKED_AT_ONCE = 2**20
_LINE = 8  # float64 in a cache line: threads that write neighbouring sums would fight over it


def bytes_per_call(kernel: str, elements: int) -> int:
    """Bytes that one call of a kernel reads and writes, write-allocate not counted.

    Raises
    ------
    ValueError
        No such kernel.
    """
    _check_kernel(kernel)
    return KERNELS[kernel] * ITEM_BYTES * elements


def prepare_stream(kernel: str, elements: int, threads: int) -> Ceiling:
    """Allocate a kernel's arrays, each part touched first by the thread that uses it.

    Parameters
    ----------
    kernel : str
        A name in :data:`KERNELS`.
    elements : int
        Of each array; the caller sees to it that they exceed the caches.
    threads : int

    Returns
    -------
    Ceiling
        Its ``error`` looks at every element.
    """
    _check_kernel(kernel)
    check_threads(threads)
    if elements < threads:
        raise ValueError(f"elements: {elements} is less than one for each of {threads} threads")
    a, b, c = (np.empty(elements if used < KERNELS[kernel] else 0) for used in range(3))
    sums = np.zeros((threads, _LINE))
    share_out(_touch, _touch_threaded, threads, a, b, c)

    def run():
        share_out(_run, _run_threaded, threads, _CODES[kernel], a, b, c, sums)

    return Ceiling(run, lambda: _error(kernel, a, sums), tolerance=0.0)


def _check_kernel(kernel: str) -> None:
    if kernel not in KERNELS:
        raise ValueError(f"unknown bandwidth kernel {kernel!r}; allowed: {', '.join(KERNELS)}")


def _error(kernel: str, a: np.ndarray, sums: np.ndarray) -> float:
    """Largest difference from what the kernel should have left, relative to the largest right value."""
    if kernel == "read":
        right = sum(float(_initial(part).sum()) for part in _chunks(a.size))
        return abs(float(sums[:, 0].sum()) - right) / right
    right = {
        "copy": lambda b: b,
        "scale": lambda b: _FACTOR * b,
        "add": lambda b: b + b,
        "triad": lambda b: b + _FACTOR * b,
    }[kernel]
    largest = float(right(np.array([_PERIOD]))[0])
    return max(float(np.abs(a[part] - right(_initial(part))).max()) for part in _chunks(a.size)) / largest


def _chunks(elements: int) -> list[slice]:
    """Slices that cover the elements, so that a check needs little memory of its own."""
    return [slice(start, min(start + _CHECKED_AT_ONCE, elements)) for start in range(0, elements, _CHECKED_AT_ONCE)]


def _initial(part: slice) -> np.ndarray:
    """What the sources hold in a slice: 1, 2, ..., 13, 1, 2, ..."""
    return 1.0 + np.arange(part.start, part.stop) % _PERIOD


@njit(cache=True, nogil=True)
def _part(array, worker, workers):
    """One worker's contiguous part: the same in every kernel, so that it is the one that the worker touched first."""
    return array[worker * array.size // workers : (worker + 1) * array.size // workers]


@njit(cache=True, nogil=True)
def _touch(worker, workers, a, b, c):
    for array in (a, b, c):
        first, part = worker * array.size // workers, _part(array, worker, workers)
        for i in range(part.size):
            part[i] = 1 + (first + i) % _PERIOD


@njit(cache=True, nogil=True)
def _run(worker, workers, code, a, b, c, sums):
    a, b, c = _part(a, worker, workers), _part(b, worker, workers), _part(c, worker, workers)
    if code == _COPY:
        _copy(a, b)
    elif code == _SCALE:
        _scale(a, b)
    elif code == _ADD:
        _add(a, b, c)
    elif code == _TRIAD:
        _triad(a, b, c)
    elif code == _READ:
        sums[worker, 0] = _sum(a)


@njit(cache=True, nogil=True)
def _copy(a, b):
    for i in range(a.size):
        a[i] = b[i]


@njit(cache=True, nogil=True)
def _scale(a, b):
    for i in range(a.size):
        a[i] = _FACTOR * b[i]


@njit(cache=True, nogil=True)
def _add(a, b, c):
    for i in range(a.size):
        a[i] = b[i] + c[i]


@njit(cache=True, nogil=True)
def _triad(a, b, c):
    for i in range(a.size):
        a[i] = b[i] + _FACTOR * c[i]


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _sum(a):
    total = 0.0
    for i in range(a.size):
        total += a[i]
    return total


@njit(cache=True, nogil=True, parallel=True)
def _touch_threaded(workers, a, b, c):
    for worker in prange(workers):
        _touch(worker, workers, a, b, c)


@njit(cache=True, nogil=True, parallel=True)
def _run_threaded(workers, code, a, b, c, sums):
    for worker in prange(workers):
        _run(worker, workers, code, a, b, c, sums)
