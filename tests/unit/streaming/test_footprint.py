"""The light estimate of memory against what the kernels allocate."""

import pytest

from streaming_attention.registry import METHODS
from streaming_attention.simd.isa import ISAS
from streaming_attention.streaming import decode, footprint, prefill
from streaming_attention.streaming.cut import STRIPS
from streaming_attention.workload import Workload


@pytest.mark.parametrize("isa", ISAS.values(), ids=list(ISAS))
@pytest.mark.parametrize("head_dim", [1, 32, 59, 64, 111, 128, 256])
@pytest.mark.parametrize("queries", [1, 3, 100])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_scratch_of_every_instruction_set_is_within_the_estimate(isa, head_dim, queries, dtype):
    workload = Workload("x", heads=4, kv_heads=2, queries=queries, keys=100, head_dim=head_dim, dtype=dtype)
    if footprint.is_decode(workload):
        needed = decode.scratch_bytes(isa, head_dim, footprint.rows_per_head(workload))
    else:
        needed = prefill.scratch_bytes(isa, head_dim, strips=STRIPS, copies=dtype != "fp32")
    estimate = footprint.workspace(workload, threads=1)
    assert needed <= estimate
    if isa.lanes == 16:
        assert estimate < 2 * needed + 64 * 1024


def test_memory_grows_with_the_tokens_and_not_with_their_square():
    short, long = (Workload("x", queries=keys, keys=keys) for keys in (2**12, 2**18))
    method = METHODS["streaming"]
    assert method.workspace(long, 8) < 64 * method.workspace(short, 8)
