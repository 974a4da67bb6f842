"""Seats: which CPU a helper wakes on, and threads held on CPUs of their own for a while."""

import os
import subprocess
import sys
import threading
import time

import pytest

from streaming_attention.machine.affinity import allowed_cpus
from streaming_attention.machine.seats import Crews, Seats, current_cpu, invite, release, thread_ids

linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity masks")


class Sleeper:
    """A thread that waits until told to end."""

    def __init__(self):
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.end.wait)

    def __enter__(self):
        self.thread.start()
        return self.thread.native_id

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()


@pytest.mark.parametrize("here", [0, 2, 4, 6, None, 99])
def test_helpers_sit_beside_their_caller_and_not_on_its_cpu(here):
    seats = Seats([0, 2, 4, 6])
    helpers = [seats.beside(here, number) for number in (1, 2, 3)]
    assert len({here, *helpers} - {None, 99}) == (4 if here in seats.cpus else 3)


def test_more_helpers_than_cpus_share_them():
    assert [Seats([5]).beside(5, number) for number in (1, 2)] == [5, 5]


@linux
def test_seats_are_the_cpus_of_the_process():
    assert sorted(Seats().cpus) == allowed_cpus()
    assert current_cpu() in allowed_cpus()


@linux
def test_an_invited_thread_may_run_on_one_cpu_until_it_is_released():
    cpus = allowed_cpus()
    with Sleeper() as thread:
        assert invite(thread, cpus[-1]) == (len(cpus) > 1)
        assert os.sched_getaffinity(thread) == {cpus[-1]}
        assert not invite(thread, cpus[0]), "it is bound already"
        assert os.sched_getaffinity(thread) == {cpus[-1]}
        release(thread, cpus)
        assert os.sched_getaffinity(thread) == set(cpus)


@linux
def test_a_thread_that_has_ended_is_no_error():
    with Sleeper() as thread:
        pass
    while thread in thread_ids():  # the kernel forgets it a little after it was joined
        time.sleep(0.001)
    assert not invite(thread, 0)
    release(thread, [0])


@linux
def test_a_crew_is_seated_beside_its_caller_and_freed_again():
    cpus = list(Seats().cpus)
    crews = Crews()
    sleepers = [Sleeper() for _ in cpus[1:]]
    threads = sorted(sleeper.__enter__() for sleeper in sleepers)
    try:
        crews.muster()
        with crews.seated():
            assert os.sched_getaffinity(0) == {cpus[0]}
            assert [os.sched_getaffinity(thread) for thread in threads] == [{cpu} for cpu in cpus[1:]]
        assert all(os.sched_getaffinity(thread) == set(cpus) for thread in [0, *threads])
        assert crews.bound == len(cpus)
    finally:
        for sleeper in sleepers:
            sleeper.__exit__()


@linux
def test_a_crew_of_another_size_is_left_alone():
    crews, cpus = Crews(), set(allowed_cpus())
    sleepers = [Sleeper() for _ in range(len(allowed_cpus()) + 1)]
    threads = [sleeper.__enter__() for sleeper in sleepers]
    try:
        crews.muster()
        with crews.seated():
            assert all(os.sched_getaffinity(thread) == cpus for thread in threads)
        assert crews.bound == 1
    finally:
        for sleeper in sleepers:
            sleeper.__exit__()


@linux
def test_the_threads_of_a_library_are_found():
    code = (
        "from streaming_attention.machine.seats import Crews\ncrews = Crews()\n"
        "import numpy\ncrews.muster()\nprint(sum(map(len, crews.crews)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == min(1, os.cpu_count() - 1)
    assert thread_ids()
