"""Triton's kernels as the registry would run them."""

import numpy as np
import pytest

from streaming_attention.inputs import make_inputs, refill
from streaming_attention.oracle import oracle
from streaming_attention.triton import methods
from streaming_attention.workload import Workload


@pytest.mark.parametrize("prepare, queries", [(methods.prepare_streaming, 70), (methods.prepare_split, 2)])
def test_a_prepared_call_reads_its_inputs_anew(prepare, queries):
    workload = Workload("w", batch=2, heads=4, kv_heads=2, queries=queries, keys=90, head_dim=64, causal=True)
    inputs = make_inputs(workload, 1)
    prepared = prepare(inputs, 2, None, {})
    for seed in (1, 2):
        refill(inputs, seed)
        expected = oracle(inputs.q, inputs.k, inputs.v, causal=True, scale=inputs.scale)
        expected = expected[0] if isinstance(expected, tuple) else expected
        np.testing.assert_allclose(prepared.run(), expected, atol=3e-6)
    prepared.close()


def test_what_the_kernels_cannot_express_has_a_reason():
    assert methods.decode_limits(Workload("w", heads=64, queries=1)) is not None
    assert methods.prefill_limits(Workload("w", head_dim=512)) is not None
    assert methods.decode_limits(Workload("w", heads=8, kv_heads=2)) is None
