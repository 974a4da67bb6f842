from itertools import product

import pytest

from streaming_attention import models
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries, keys", [*product([1, 2, 3, 7], [1, 2, 3, 7, 11])])
def test_visible_pairs_by_brute_force(queries, keys, causal):
    workload = Workload("test", 2, 6, 3, queries, keys, 5, causal)
    seen = sum(1 for i in range(queries) for j in range(keys) if not causal or j <= i + keys - queries)
    assert models.visible_pairs(workload) == 2 * 6 * seen
    multiply_adds = 2 * 5  # Q K^T and P V, head_dim each
    assert models.flops(workload) == 2 * multiply_adds * 2 * 6 * seen


def test_bytes_of_the_published_query():
    """One query over 64K keys moves K and V, 67 MB: the published 8.59 ms are 7.8 GB/s, not a prefill."""
    workload = Workload("query", keys=65536, head_dim=128)
    assert models.bytes_moved(workload) == 2 * 65536 * 128 * 4 + 2 * 128 * 4
    assert models.bytes_moved(workload) / 8.59e-3 / 1e9 == pytest.approx(7.8, abs=0.05)
    assert models.intensity(workload) == pytest.approx(0.5, rel=1e-4)


def test_intensity_of_prefill_grows_with_length():
    short, long = (Workload("prefill", queries=keys, keys=keys, head_dim=128) for keys in (1024, 8192))
    assert models.intensity(short) == 1024 / 4
    assert models.intensity(long) == 8192 / 4


def test_tensor_bytes_of_the_fullest_rank():
    workload = Workload("test", 2, 4, 2, 3, 10, 8)
    q_and_o, k_and_v = 2 * 2 * 4 * 3 * 8 * 4, 2 * 2 * 2 * 10 * 8 * 4
    assert models.tensor_bytes(workload) == q_and_o + k_and_v
    assert models.tensor_bytes(workload, ranks=4) == q_and_o + k_and_v * 3 // 10


def test_scores_of_64k_prefill_are_16_gib():
    assert models.scores_bytes(Workload("prefill", queries=65536, keys=65536)) == 16 * 2**30


def test_prediction_takes_the_slower_of_computing_and_moving():
    method, layout = METHODS["streaming"], Layout(sockets=2, threads=2)
    prefill = Workload("prefill", queries=4096, keys=4096, head_dim=128)
    query = Workload("query", keys=4096, head_dim=128)
    computing = models.flops(prefill) / (4 * method.rate * 1e9)
    assert models.predict_seconds(prefill, method, layout) == pytest.approx(computing)
    assert models.predict_seconds(query, method, layout, gbs=2.0) == pytest.approx(models.bytes_moved(query) / 8e9)
