import numpy as np
import pytest
from problems import assert_right, draw

from streaming_attention import attention
from streaming_attention.inputs import make_inputs
from streaming_attention.workload import Workload

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("queries", [1, 7, 40])
def test_causal_is_aligned_at_the_bottom_right(queries):
    q, k, v = draw(1, 4, 2, queries, 40, 16)
    assert_right(attention(q, k, v, causal=True, method="torch_sdpa"), None, q, k, v, causal=True)


def test_tensors_share_the_arrays_and_threads_return():
    from streaming_attention.baselines import torch_sdpa

    inputs = make_inputs(Workload("x", 1, 2, 1, 5, 9, 16), 1)
    prepared = torch_sdpa.prepare(inputs, 2, None, {})
    before = torch.get_num_threads()
    first = prepared.run().copy()
    assert torch.get_num_threads() == before
    inputs.v[:] *= 2
    np.testing.assert_allclose(prepared.run(), 2 * first, rtol=1e-6)


def test_more_queries_than_keys_and_lse_are_refused():
    q, k, v = draw(1, 1, 1, 5, 3, 16)
    with pytest.raises(ValueError, match="queries > keys"):
        attention(q, k, v, causal=True, method="torch_sdpa")
    with pytest.raises(ValueError, match="return_lse: torch_sdpa"):
        attention(q, k, v, method="torch_sdpa", return_lse=True)
