import os
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
from problems import SAME_BITS, draw

from streaming_attention import attention
from streaming_attention.parallel import check_threads, most_threads, numba_threads, share_out


def test_threads_are_held_inside_and_return_afterwards():
    before = numba.get_num_threads()
    with numba_threads(2):
        assert numba.get_num_threads() == 2
    assert numba.get_num_threads() == before
    with pytest.raises(RuntimeError, match="inside"), numba_threads(1):
        raise RuntimeError("inside")
    assert numba.get_num_threads() == before


@pytest.mark.parametrize("threads", [0, -1, most_threads() + 1])
def test_threads_beyond_the_pool_are_an_error(threads):
    with pytest.raises(ValueError, match=f"threads: {threads} .* 1 to {most_threads()}"):
        check_threads(threads)


def test_one_thread_runs_the_serial_form():
    calls = []
    share_out(lambda *given: calls.append(given), None, 1, "a", "b")
    share_out(None, lambda *given: calls.append((numba.get_num_threads(), *given)), 3, "a")
    assert calls == [(0, 1, "a", "b"), (3, 3, "a")]


@pytest.mark.parametrize("method", SAME_BITS)
def test_python_threads_may_call_at_once(method):
    q, k, v = draw(1, 4, 2, 16, 300, 32)  # few enough queries for every method
    expected = attention(q, k, v, method=method, threads=2)
    found = [None] * 4

    def call(index):
        for _ in range(20):
            found[index] = attention(q, k, v, method=method, threads=1 + index % 3)

    workers = [threading.Thread(target=call, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in found:
        np.testing.assert_array_equal(result, expected)


BITS = """
import sys
import numpy as np
from streaming_attention import attention
q, k, v = np.random.default_rng(0).standard_normal((3, 1, 2, 200, 59)).astype(np.float32)
for threads in sys.argv[1:]:
    print(attention(q, k, v, causal=True, method="streaming_loops", threads=int(threads)).tobytes().hex())
"""


def test_bits_do_not_depend_on_what_the_cache_holds(tmp_path):
    """The first process compiles the serial form alone; the second takes it from the cache and compiles the other."""
    results = set()
    for threads in (["1"], ["1", "2"]):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "-c", BITS, *threads]
        results |= set(
            subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
        )
    assert len(results) == 1


CONCURRENT = """
import threading
import numba, numpy as np
from streaming_attention import attention

q = np.ones((1, 4, 256, 64), np.float32)
attention(q, q, q, method="streaming_loops", threads=2)
assert numba.threading_layer() == "workqueue"
barrier = threading.Barrier(3)

def call():
    barrier.wait()
    for _ in range(30):
        attention(q, q, q, method="streaming_loops", threads=2)

workers = [threading.Thread(target=call) for _ in range(3)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print("finished")
"""


def test_workqueue_survives_concurrent_callers():
    """Without the lock this layer ends the process: "Concurrent access has been detected"."""
    done = subprocess.run(
        [sys.executable, "-c", CONCURRENT],
        env={**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "finished\n"
