"""Programs of a grid over threads, from native code.

The pool is LLVM IR: a launch takes a lock, posts a job, wakes sleeping workers, and takes programs one by one from an
atomic counter like everybody else. It waits for workers that joined, not for those that are still waking up, so a
launch costs little more than the work. Which thread runs a program never changes what it computes.

Workers are threads of Python's that never come back from native code; each is bound to a CPU of its own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from functools import cache

from streaming_attention.triton.cpu.engine import Loaded, compile_object
from streaming_attention.triton.cpu.target import make_target

FIELDS = {"mutex": 0, "wake": 128, "done": 256, "open": 384, "stop": 392, "active": 400, "function": 448,
          "arguments": 456,
          "grid": 464, "programs": 472, "scratch": 480, "stride": 488, "next": 512}  # fmt: skip
"""Byte offsets in the pool's memory; mutex and condition variables get room for any C library's."""

SIZE = 1024
SPINS = 400
"""Looks at the queue before a worker goes to sleep: some microseconds, about what waking it up would cost."""

IR = """
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
PAUSE_DECLARATION

define void @pool_init(ptr %pool) {
  %wake = getelementptr i8, ptr %pool, i64 WAKE
  %done = getelementptr i8, ptr %pool, i64 DONE
  %a = call i32 @pthread_mutex_init(ptr %pool, ptr null)
  %b = call i32 @pthread_cond_init(ptr %wake, ptr null)
  %c = call i32 @pthread_cond_init(ptr %done, ptr null)
  ret void
}

; take programs until none is left
define internal void @drain(ptr %pool, ptr %scratch) noinline {
  %p.function = getelementptr i8, ptr %pool, i64 FUNCTION
  %p.arguments = getelementptr i8, ptr %pool, i64 ARGUMENTS
  %p.grid = getelementptr i8, ptr %pool, i64 GRID
  %p.programs = getelementptr i8, ptr %pool, i64 PROGRAMS
  %p.next = getelementptr i8, ptr %pool, i64 NEXT
  %function = load ptr, ptr %p.function
  %arguments = load ptr, ptr %p.arguments
  %grid = load ptr, ptr %p.grid
  %programs = load i64, ptr %p.programs
  br label %take
take:
  %mine = atomicrmw add ptr %p.next, i64 1 monotonic
  %left = icmp slt i64 %mine, %programs
  br i1 %left, label %run, label %end
run:
  call void %function(ptr %arguments, ptr %grid, i64 %mine, ptr %scratch)
  br label %take
end:
  ret void
}

define void @pool_serial(ptr %function, ptr %arguments, ptr %grid, i64 %programs, ptr %scratch) {
entry:
  br label %take
take:
  %mine = phi i64 [ 0, %entry ], [ %next, %run ]
  %left = icmp slt i64 %mine, %programs
  br i1 %left, label %run, label %end
run:
  call void %function(ptr %arguments, ptr %grid, i64 %mine, ptr %scratch)
  %next = add i64 %mine, 1
  br label %take
end:
  ret void
}

define void @pool_launch(ptr %pool, ptr %function, ptr %arguments, ptr %grid, i64 %programs,
                         ptr %scratch, i64 %stride, i64 %helpers) {
  %p.function = getelementptr i8, ptr %pool, i64 FUNCTION
  %p.arguments = getelementptr i8, ptr %pool, i64 ARGUMENTS
  %p.grid = getelementptr i8, ptr %pool, i64 GRID
  %p.programs = getelementptr i8, ptr %pool, i64 PROGRAMS
  %p.scratch = getelementptr i8, ptr %pool, i64 SCRATCH
  %p.stride = getelementptr i8, ptr %pool, i64 STRIDE
  %p.next = getelementptr i8, ptr %pool, i64 NEXT
  %p.open = getelementptr i8, ptr %pool, i64 OPEN
  %p.active = getelementptr i8, ptr %pool, i64 ACTIVE
  %wake = getelementptr i8, ptr %pool, i64 WAKE
  %done = getelementptr i8, ptr %pool, i64 DONE
  %l1 = call i32 @pthread_mutex_lock(ptr %pool)
  store ptr %function, ptr %p.function
  store ptr %arguments, ptr %p.arguments
  store ptr %grid, ptr %p.grid
  store i64 %programs, ptr %p.programs
  store ptr %scratch, ptr %p.scratch
  store i64 %stride, ptr %p.stride
  store i64 0, ptr %p.next
  store atomic i64 %helpers, ptr %p.open release, align 8
  %w = call i32 @pthread_cond_broadcast(ptr %wake)
  %u1 = call i32 @pthread_mutex_unlock(ptr %pool)
  call void @drain(ptr %pool, ptr %scratch)
  %l2 = call i32 @pthread_mutex_lock(ptr %pool)
  store atomic i64 0, ptr %p.open release, align 8
  br label %check
check:
  %active = load i64, ptr %p.active
  %idle = icmp eq i64 %active, 0
  br i1 %idle, label %end, label %wait
wait:
  %d = call i32 @pthread_cond_wait(ptr %done, ptr %pool)
  br label %check
end:
  %u2 = call i32 @pthread_mutex_unlock(ptr %pool)
  ret void
}

define void @pool_worker(ptr %pool) {
entry:
  %p.open = getelementptr i8, ptr %pool, i64 OPEN
  %p.stop = getelementptr i8, ptr %pool, i64 STOP
  %p.active = getelementptr i8, ptr %pool, i64 ACTIVE
  %p.scratch = getelementptr i8, ptr %pool, i64 SCRATCH
  %p.stride = getelementptr i8, ptr %pool, i64 STRIDE
  %wake = getelementptr i8, ptr %pool, i64 WAKE
  %done = getelementptr i8, ptr %pool, i64 DONE
  br label %spin
spin:
  %turn = phi i64 [ 0, %entry ], [ 0, %finished ], [ %turns, %again ]
  %seen = load atomic i64, ptr %p.open acquire, align 8
  %posted = icmp sgt i64 %seen, 0
  %tired = icmp sge i64 %turn, SPINS
  %enough = or i1 %posted, %tired
  br i1 %enough, label %enter, label %again
again:
  PAUSE
  %turns = add i64 %turn, 1
  br label %spin
enter:
  %l1 = call i32 @pthread_mutex_lock(ptr %pool)
  br label %check
check:
  %stop = load i64, ptr %p.stop
  %stopping = icmp ne i64 %stop, 0
  br i1 %stopping, label %leave, label %look
look:
  %open = load i64, ptr %p.open
  %work = icmp sgt i64 %open, 0
  br i1 %work, label %join, label %sleep
sleep:
  %s = call i32 @pthread_cond_wait(ptr %wake, ptr %pool)
  br label %check
join:
  %fewer = sub i64 %open, 1
  store atomic i64 %fewer, ptr %p.open release, align 8
  %active = load i64, ptr %p.active
  %more = add i64 %active, 1
  store i64 %more, ptr %p.active
  %base = load ptr, ptr %p.scratch
  %stride = load i64, ptr %p.stride
  %place = mul i64 %open, %stride
  %scratch = getelementptr i8, ptr %base, i64 %place
  %u1 = call i32 @pthread_mutex_unlock(ptr %pool)
  call void @drain(ptr %pool, ptr %scratch)
  %l2 = call i32 @pthread_mutex_lock(ptr %pool)
  %now = load i64, ptr %p.active
  %less = sub i64 %now, 1
  store i64 %less, ptr %p.active
  %last = icmp eq i64 %less, 0
  br i1 %last, label %tell, label %finished
tell:
  %t = call i32 @pthread_cond_broadcast(ptr %done)
  br label %finished
finished:
  %u2 = call i32 @pthread_mutex_unlock(ptr %pool)
  br label %spin
leave:
  %u3 = call i32 @pthread_mutex_unlock(ptr %pool)
  ret void
}
"""


def _module(x86: bool) -> str:
    text = IR.replace("PAUSE_DECLARATION", "declare void @llvm.x86.sse2.pause()" if x86 else "")
    text = text.replace("PAUSE", "call void @llvm.x86.sse2.pause()" if x86 else "fence acquire").replace(
        "SPINS", str(SPINS)
    )
    for name, offset in FIELDS.items():
        text = text.replace(f"i64 {name.upper()}\n", f"i64 {offset}\n")
    return text


@cache
def _code() -> Loaded:
    """The pool's machine code, kept for good: a worker on its way out may still be in it."""
    target = make_target()
    return Loaded(compile_object(_module(platform.machine() in ("x86_64", "AMD64")), target), target)


class Pool:
    """Threads that share a grid's programs; the caller is one of them.

    Parameters
    ----------
    threads : int
        At most; one means that the caller works alone.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self.busy = threading.Lock()
        self._storage = ctypes.create_string_buffer(SIZE + 64)
        self.memory = -(-ctypes.addressof(self._storage) // 64) * 64
        self._scratch = (0, None)
        self.launch = self._function("pool_launch", count=8)
        self.serial = self._function("pool_serial", count=5)
        self._function("pool_init", count=1)(self.memory)
        worker = self._function("pool_worker", count=1)
        cpus = _cpus()
        for place in range(1, threads):
            cpu = cpus[place % len(cpus)]
            threading.Thread(
                target=_work, args=(worker, self.memory, cpu, self._storage), daemon=True, name=f"triton-{place}"
            ).start()

    def _function(self, name: str, count: int):
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_size_t] * count)
        return kind(_code().address(name))

    def scratch(self, size: int, owners: int) -> int:
        """Address of room for ``owners`` times ``size`` bytes, kept from call to call."""
        if self._scratch[0] < size * owners:
            self._scratch = (size * owners, _aligned(size * owners))
        return self._scratch[1][0]

    def run(self, function: int, arguments: int, grid: int, programs: int, scratch: int) -> None:
        """Run all programs of a grid.

        Parameters
        ----------
        function, arguments, grid : int
            Addresses: ``void(arguments, grid, program, scratch)`` and its first two arguments.
        programs, scratch : int
            How many, and the bytes of scratch that each needs.
        """
        if not self.busy.acquire(blocking=False):  # someone else's launch has the workers: do it alone
            place, _keep = _aligned(scratch)
            self.serial(function, arguments, grid, programs, place)
            return
        try:
            helpers = min(self.threads, programs) - 1
            base = self.scratch(scratch, helpers + 1)
            if helpers:
                self.launch(self.memory, function, arguments, grid, programs, base, scratch, helpers)
            else:
                self.serial(function, arguments, grid, programs, base)
        finally:
            self.busy.release()

    def close(self) -> None:
        """Let the workers go."""
        with self.busy:
            ctypes.c_int64.from_address(self.memory + FIELDS["stop"]).value = 1
            self.launch(self.memory, 0, 0, 0, 0, 0, 0, 0)


def _work(worker, memory: int, cpu: int, storage) -> None:
    """A worker's life; it holds the pool's memory until it has left."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    worker(memory)


def _cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _aligned(size: int) -> tuple[int, object]:
    """Address of memory on a cache line, and what keeps it alive."""
    import numpy as np

    memory = np.empty(size + 64, np.uint8)
    return -(-memory.__array_interface__["data"][0] // 64) * 64, memory


_POOL: Pool | None = None
_LOCK = threading.Lock()


def pool() -> Pool:
    """The process's pool, of as many threads as it may use CPUs until :func:`set_threads` says otherwise."""
    global _POOL
    if _POOL is None:
        with _LOCK:
            if _POOL is None:
                _POOL = Pool(len(_cpus()))
    return _POOL


def set_threads(threads: int) -> None:
    """How many threads later launches use, the caller among them.

    Raises
    ------
    ValueError
        Less than one.
    """
    global _POOL
    if threads < 1:
        raise ValueError(f"threads: {threads} is not at least 1")
    with _LOCK:
        if _POOL is not None and _POOL.threads != threads:
            _POOL.close()
            _POOL = None
        if _POOL is None:
            _POOL = Pool(threads)


def get_threads() -> int:
    """How many threads a launch uses."""
    return pool().threads


def _forget() -> None:
    """A forked child has no workers: it builds a pool of its own when it needs one."""
    global _POOL, _LOCK
    _POOL, _LOCK = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
