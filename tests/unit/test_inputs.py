from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from streaming_attention.distributed.holdings import spread
from streaming_attention.inputs import CHUNK, make_inputs, refill
from streaming_attention.slices import Holding, key_slice
from streaming_attention.workload import Workload

WORKLOAD = Workload("test", 2, 4, 2, 3, 2 * CHUNK + 100, 5)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_slices_of_all_ranks_tile_the_global_tensors(ranks):
    whole = make_inputs(WORKLOAD, seed=1)
    parts = [make_inputs(WORKLOAD, 1, spread(WORKLOAD, rank, ranks)) for rank in range(ranks)]
    for part in parts:
        np.testing.assert_array_equal(part.q, whole.q)
        assert part.k.shape[2] == part.holding.key_count
    np.testing.assert_array_equal(np.concatenate([part.k for part in parts], axis=2), whole.k)
    np.testing.assert_array_equal(np.concatenate([part.v for part in parts], axis=2), whole.v)


def test_runs_lie_side_by_side():
    whole = make_inputs(WORKLOAD, seed=1)
    held = Holding(((0, 1), (2, 3)), ((5, 5), (10, 4100), (8192, 8195)))
    part = make_inputs(WORKLOAD, 1, held)
    np.testing.assert_array_equal(part.q, whole.q[:, :, [0, 2]])
    for mine, every in ((part.k, whole.k), (part.v, whole.v)):
        np.testing.assert_array_equal(mine, np.concatenate([every[:, :, 10:4100], every[:, :, 8192:8195]], axis=2))
    refill(part, 2)
    np.testing.assert_array_equal(part.q, make_inputs(WORKLOAD, 2).q[:, :, [0, 2]])


@pytest.mark.parametrize("keys, ranks", [(10, 4), (3, 5), (0, 2), (8, 8), (65536, 3)])
def test_slices_are_contiguous_and_even(keys, ranks):
    slices = [key_slice(keys, rank, ranks) for rank in range(ranks)]
    sizes = [stop - start for start, stop in slices]
    assert slices[0][0] == 0
    assert slices[-1][1] == keys
    assert all(left[1] == right[0] for left, right in pairwise(slices))
    assert max(sizes) - min(sizes) <= 1


def test_values_are_standard_normal_and_all_different():
    inputs = make_inputs(WORKLOAD, seed=1)
    for tensor in (inputs.q, inputs.k, inputs.v):
        assert tensor.dtype == np.float32
        assert tensor.flags.c_contiguous
    assert abs(inputs.k.mean()) < 0.01
    assert abs(inputs.k.std() - 1) < 0.01
    values = np.concatenate([inputs.q.ravel(), inputs.k.ravel(), inputs.v.ravel()])
    assert len(np.unique(values)) > 0.98 * len(values)


def test_a_seed_gives_the_same_values_and_another_gives_others():
    inputs = make_inputs(WORKLOAD, seed=1)
    before = inputs.k.copy()
    refill(inputs, seed=2)
    assert not np.isclose(inputs.k, before).any(axis=-1).all()
    refill(inputs, seed=1)
    np.testing.assert_array_equal(inputs.k, before)


def test_fewer_queries_are_the_first_of_more():
    longer = make_inputs(replace(WORKLOAD, queries=10), seed=1)
    np.testing.assert_array_equal(make_inputs(WORKLOAD, seed=1).q, longer.q[:, :, :3])


def test_scale_is_the_workloads_unless_given():
    inputs = make_inputs(WORKLOAD, seed=1)
    assert inputs.scale == WORKLOAD.scale
    assert replace(inputs, scale=2.0).scale == 2.0
