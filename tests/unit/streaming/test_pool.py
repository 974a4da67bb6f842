"""The pool: every task once, concurrent callers, forks, sleep."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
from numba import njit
from problems import draw

from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.isa import select_isa
from streaming_attention.simd.memory import atomic_add, load_i64, store_i64
from streaming_attention.streaming.front import run_prefill
from streaming_attention.streaming.pool import Pool


@njit(nogil=True)
def _count(isa, job, task, scratch):
    """Adds one to the task's counter; writes to the scratch that is the thread's own."""
    store_i64(task, scratch)
    atomic_add(job + 8 * load_i64(scratch), 1)


def count_tasks(pool, tasks, threads):
    counters = np.zeros(max(tasks, 1), np.int64)
    isa = select_isa()
    pool.launch(isa, address_of(_count, isa, 3), counters.ctypes.data, tasks, threads, 64)
    return counters[:tasks]


@pytest.fixture
def pool():
    pool = Pool()
    yield pool
    pool.close()


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
@pytest.mark.parametrize("tasks", [0, 1, 3, 1000])
def test_every_task_runs_once(pool, tasks, threads):
    for _ in range(20):
        assert (count_tasks(pool, tasks, threads) == 1).all()


def test_helpers_wake_after_they_slept(pool):
    for _ in range(3):
        assert (count_tasks(pool, 1000, 3) == 1).all()
        time.sleep(0.02)


def test_an_idle_pool_uses_no_cpu(pool):
    count_tasks(pool, 100, 4)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_concurrent_callers(pool):
    results = []

    def call():
        for _ in range(50):
            results.append((count_tasks(pool, 200, 3) == 1).all())

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 200 and all(results)


def _attend_in_child(expected, queue):
    q, k, v = draw(queries=200, keys=200)
    out = np.empty_like(q)
    run_prefill(q, k, v, out, threads=2)
    queue.put(bool((out == expected).all()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_has_a_pool_of_its_own():
    q, k, v = draw(queries=200, keys=200)
    out = np.empty_like(q)
    run_prefill(q, k, v, out, threads=2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_attend_in_child, args=(out, queue))
    child.start()
    assert queue.get(timeout=60)
    child.join()
    run_prefill(q, k, v, out, threads=2)
