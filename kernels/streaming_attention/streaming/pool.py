"""A pool of threads that run tasks of a kernel, at a few microseconds a launch.

A launch posts a job, and every thread, the caller's included, claims its tasks one after the other until none is
left. Helpers are Python threads inside jitted code that holds no lock: they look for the next job for
:data:`SPIN` rounds, then sleep on a lock, so an idle pool uses no CPU. A thread that is late to a job claims
nothing; nobody waits for it.

* Concurrent calls: a pool serves one caller. Another that comes meanwhile runs its tasks by itself, which gives
  the same bits, because no kernel's result depends on who runs a task.
* After a fork the child starts a pool of its own at its first launch.

Numba's own layers were no base for this: ``workqueue`` aborts on concurrent calls, libgomp dies when forked after use.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

import numpy as np
from numba import njit

from streaming_attention.machine.seats import Seats, current_cpu, invite, release
from streaming_attention.simd import jit
from streaming_attention.simd.compiled import callable_from
from streaming_attention.simd.memory import (
    atomic_add,
    atomic_load,
    atomic_store,
    call_task,
    compare_and_swap,
    load_i64,
    pause,
    store_i64,
)

SPIN = 2000
"""Rounds of looking for work before a helper sleeps: tens of microseconds."""
PATIENCE = 20000
"""Rounds of waiting for the others' last tasks before the caller yields its core between looks."""
MAX_THREADS = 1024
PAGE = 4096
LINE = 64

# The pool's state: int64 words, those that several threads write on cache lines of their own. A ticket is
# `generation << 32 | next task`. Fields of a job change only while its ticket says NONE_LEFT, so a claim
# (compare-and-swap on the ticket) that succeeds proves that the fields read before it belong to that job.
TICKET, DONE = 0, 8
TASKS, FUNCTION, JOB, THREADS, SCRATCH, SCRATCH_BYTES, CLOSED = range(16, 23)
SLEEPING = 32
PER_THREAD = 8
"""Words from one helper's SLEEPING to the next's."""
NONE_LEFT = 0xFFFFFFFF
AWAKE, ASLEEP, CALLED = 0, 1, 2
"""Values of SLEEPING; CALLED until the launch that found the helper asleep has released its lock."""


@jit
def _word(state, index):
    return state + 8 * index


@jit
def _work(isa, state, thread):
    """Claim and run tasks until the ticket has none left for this thread (0 is the caller)."""
    while True:
        ticket = atomic_load(_word(state, TICKET))
        tasks = load_i64(_word(state, TASKS))
        function = load_i64(_word(state, FUNCTION))
        job = load_i64(_word(state, JOB))
        threads = load_i64(_word(state, THREADS))
        scratch = load_i64(_word(state, SCRATCH)) + thread * load_i64(_word(state, SCRATCH_BYTES))
        task = ticket & NONE_LEFT
        if task >= tasks or thread >= threads:
            return
        if compare_and_swap(_word(state, TICKET), ticket, ticket + 1):
            call_task(function, isa, job, task, scratch)
            atomic_add(_word(state, DONE), 1)


@njit(nogil=True, error_model="numpy", cache=True)
def _help(isa, state, thread):
    """What a helper does between two sleeps."""
    sleeping = _word(state, SLEEPING + PER_THREAD * thread)
    seen = -1
    idle = 0
    while True:
        if atomic_load(_word(state, TICKET)) != seen:
            _work(isa, state, thread)
            seen = atomic_load(_word(state, TICKET))
            idle = 0
        idle += 1
        pause()
        if idle > SPIN:
            # Either a launch sees this flag and wakes us, or we see its ticket on the next line.
            atomic_store(ASLEEP, sleeping)
            if atomic_load(_word(state, TICKET)) == seen or not compare_and_swap(sleeping, ASLEEP, AWAKE):
                return
            idle = 0


@njit(nogil=True, error_model="numpy", cache=True)
def _post(isa, state, function, job, tasks, threads):
    """Publish a job; returns how many of its helpers sleep, each marked CALLED."""
    generation = (atomic_load(_word(state, TICKET)) >> 32) + 1
    atomic_store((generation << 32) | NONE_LEFT, _word(state, TICKET))
    store_i64(tasks, _word(state, TASKS))
    store_i64(function, _word(state, FUNCTION))
    store_i64(job, _word(state, JOB))
    store_i64(threads, _word(state, THREADS))
    atomic_store(0, _word(state, DONE))
    atomic_store(generation << 32, _word(state, TICKET))
    called = np.int64(0)
    for thread in range(1, threads):
        called += compare_and_swap(_word(state, SLEEPING + PER_THREAD * thread), ASLEEP, CALLED)
    return np.int64(called)


@njit(nogil=True, error_model="numpy", cache=True)
def _finish(isa, state):
    """Work on the posted job, then wait for the others' last tasks; 0 where that takes long."""
    _work(isa, state, 0)
    tasks = load_i64(_word(state, TASKS))
    for _ in range(PATIENCE):
        if atomic_load(_word(state, DONE)) == tasks:
            return np.int64(1)
        pause()
    return np.int64(0)


@njit(nogil=True, error_model="numpy", cache=True)
def _run_alone(isa, function, job, tasks, scratch):
    for task in range(tasks):
        call_task(function, isa, job, task, scratch)


def _aligned(array: np.ndarray, boundary: int) -> int:
    """First address in `array` on a boundary."""
    return -(-array.ctypes.data // boundary) * boundary


class Pool:
    """Helper threads and the scratch memory of every thread. :func:`launch` keeps one per process."""

    def __init__(self):
        self._lock = threading.Lock()
        self._memory = np.zeros(SLEEPING + PER_THREAD * (MAX_THREADS + 1), np.int64)
        self._state = _aligned(self._memory, LINE)
        self._words = self._memory[(self._state - self._memory.ctypes.data) // 8 :]
        self._wakers: list[threading.Lock] = []
        self._helpers: list[threading.Thread] = []
        self._seats: Seats | None = None
        self._invited: set[int] = set()
        self._scratch = np.empty(0, np.uint8)
        self._base = 0

    def launch(self, isa, kernel: int, job: int, tasks: int, threads: int, scratch_bytes: int) -> None:
        """Run tasks 0 .. `tasks` of a job, on up to `threads` threads; returns when all are done.

        Parameters
        ----------
        isa : Isa
            The kernel's first argument.
        kernel : int
            Address of a compiled ``kernel(isa, job, task, scratch)``.
        job : int or bytes
            The job's description or its address, for the kernel alone to read.
        tasks, threads : int
        scratch_bytes : int
            Memory that each thread needs, page-aligned, its content undefined.
        """
        threads = min(threads, tasks, MAX_THREADS)
        alone = callable_from(_run_alone, isa, 4)
        finish = callable_from(_finish, isa, 1, True)
        if not self._lock.acquire(blocking=False):
            memory = np.empty(scratch_bytes + PAGE, np.uint8)
            alone(kernel, job, tasks, _aligned(memory, PAGE))
            return
        try:
            self._reserve(isa, threads, scratch_bytes)
            if threads <= 1:
                alone(kernel, job, tasks, self._base)
                return
            if callable_from(_post, isa, 5, True)(self._state, kernel, job, tasks, threads):
                self._wake(threads)
            while not finish(self._state):
                time.sleep(0)
        finally:
            # Also after a KeyboardInterrupt: the helpers must be out of the job before its memory goes.
            while threads > 1 and not finish(self._state):
                pass
            self._lock.release()

    def close(self) -> None:
        """End the helpers. A pool that is never closed ends with the process."""
        with self._lock:
            self._words[CLOSED] = 1
            for waker in self._wakers:
                with contextlib.suppress(RuntimeError):  # released already: its helper is on the way
                    waker.release()

    def _reserve(self, isa, threads: int, scratch_bytes: int) -> None:
        """Have helpers and scratch enough. One page more per thread keeps equal offsets off the same cache sets."""
        if threads * (scratch_bytes + 2 * PAGE) > self._scratch.nbytes:
            self._scratch = np.empty(threads * (scratch_bytes + 2 * PAGE) + PAGE, np.uint8)
            self._base = self._words[SCRATCH] = _aligned(self._scratch, PAGE)
        self._words[SCRATCH_BYTES] = -(-scratch_bytes // PAGE) * PAGE + PAGE
        if threads > 1 and self._seats is None:
            self._seats = Seats()
        while len(self._wakers) < threads - 1:
            waker = threading.Lock()
            waker.acquire()
            self._wakers.append(waker)
            arguments = isa, len(self._wakers), waker
            helper = threading.Thread(target=self._serve, args=arguments, daemon=True, name="attention")
            helper.start()
            self._helpers.append(helper)

    def _wake(self, threads: int) -> None:
        """Wake the helpers that were called, each on a CPU of its own and none on the caller's."""
        here = current_cpu()
        for thread in range(1, threads):
            if self._words[SLEEPING + PER_THREAD * thread] == CALLED:
                self._words[SLEEPING + PER_THREAD * thread] = AWAKE
                if here is not None and invite(self._helpers[thread - 1].native_id, self._seats.beside(here, thread)):
                    self._invited.add(thread)
                self._wakers[thread - 1].release()

    def _serve(self, isa, thread: int, waker) -> None:
        """A helper's life. `isa` only chooses which compiled copy of the loop runs; jobs bring their own kernels."""
        while not self._words[CLOSED]:
            callable_from(_help, isa, 2)(self._state, thread)
            waker.acquire()
            if thread in self._invited:  # and came: from here on the scheduler may move it
                self._invited.discard(thread)
                release(0, self._seats.cpus)


_pool = Pool()


def launch(*arguments) -> None:
    """:meth:`Pool.launch` of this process's pool."""
    _pool.launch(*arguments)


def _after_fork() -> None:
    global _pool
    _pool = Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
