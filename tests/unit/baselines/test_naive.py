import numpy as np
import pytest

from streaming_attention import models
from streaming_attention.baselines import naive
from streaming_attention.inputs import make_inputs
from streaming_attention.oracle import plain
from streaming_attention.workload import Workload


@pytest.mark.parametrize(
    "queries, kernel", [(1, "naive, pieces of rows"), (2, "naive, pieces of rows"), (3, "naive, rows")]
)
def test_few_queries_are_cut_into_pieces(queries, kernel):
    workload = Workload("x", queries=queries, keys=2 * naive.KEY_PIECE + 5, head_dim=19, causal=True)
    inputs = make_inputs(workload, 1)
    prepared = naive.prepare(inputs, 3, None, {})
    assert prepared.kernel == kernel
    np.testing.assert_array_equal(prepared.run(), naive.prepare(inputs, 1, None, {}).run())


def test_takes_no_liberties_with_the_arithmetic():
    """Sums in the textbook's order; only exp may differ, by an ulp."""
    inputs = make_inputs(Workload("x", queries=20, keys=500, head_dim=64), 1)
    out = naive.prepare(inputs, 1, None, {}).run()
    np.testing.assert_allclose(out, plain(inputs.q, inputs.k, inputs.v)[0], rtol=1e-4, atol=1e-6)


def test_workspace_is_one_heads_scores():
    workload = Workload("x", 2, 4, 2, 30, 50, 8)
    assert models.naive_workspace(workload, 1) == 30 * 50 * 4 + 2 * 4 * 30 * 4
