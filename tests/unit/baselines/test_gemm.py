import numpy as np
import pytest
import threadpoolctl

from streaming_attention import models
from streaming_attention.baselines import gemm
from streaming_attention.inputs import make_inputs
from streaming_attention.workload import Workload


def blas_threads():
    """Threads of each BLAS by its file: SciPy may bring a second one, which Numba loads while it compiles."""
    return {
        pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_is_held_for_the_call_and_let_go(threads, monkeypatch):
    seen, before = [], blas_threads()
    matmul = np.matmul

    def watched(*arguments, **named):
        now = blas_threads()
        seen.append({now[file] for file in before})
        return matmul(*arguments, **named)

    prepared = gemm.prepare(make_inputs(Workload("x", 1, 4, 2, 5, 9, 16), 1), threads, None, {})
    monkeypatch.setattr(np, "matmul", watched)
    prepared.run()
    assert seen == 4 * [{threads}]  # two products for each of two K/V heads
    assert before.items() <= blas_threads().items()


def test_heads_that_share_keys_share_a_product():
    """One product for the rows of a whole group: K and V are never copied for it."""
    workload = Workload("x", 2, 6, 2, 30, 50, 8)
    assert models.gemm_workspace(workload, 1) == 3 * 30 * 50 * 4 + 2 * 6 * 30 * 4
