"""Every method of the registry against the oracle, on every shape that has ever been awkward."""

import numpy as np
import pytest
from problems import AVAILABLE, SAME_BITS, assert_right, draw

from streaming_attention import attention
from streaming_attention.dtypes import numpy_dtype
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

SHAPES = {
    "one query, one key": (1, 1, 1, 1, 1, 64),
    "one key": (1, 2, 2, 17, 1, 64),
    "one query": (1, 1, 1, 1, 1000, 128),
    "one query, several splits": (1, 2, 1, 1, 3000, 64),
    "a block less one": (1, 2, 2, 127, 127, 32),
    "a block": (1, 2, 2, 128, 128, 32),
    "a block and one": (1, 2, 2, 129, 129, 32),
    "many tiles": (1, 3, 3, 700, 90, 32),
    "fewer queries than keys": (2, 2, 2, 33, 210, 64),
    "more queries than keys": (2, 2, 2, 40, 9, 64),
    "head_dim 1": (1, 4, 4, 16, 40, 1),
    "head_dim 59": (2, 3, 1, 33, 71, 59),
    "head_dim 80": (1, 2, 2, 20, 150, 80),
    "head_dim 96": (1, 2, 2, 20, 150, 96),
    "head_dim 111": (1, 2, 2, 20, 150, 111),
    "head_dim 256": (1, 1, 1, 20, 150, 256),
    "group of 3": (2, 6, 2, 20, 50, 32),
    "group of 5": (1, 10, 2, 7, 50, 32),
    "group of 7": (1, 7, 1, 65, 65, 32),
    "group of 27": (1, 27, 1, 3, 100, 64),
}


def feasible(method, shape, causal, threads):
    return METHODS[method].infeasible(Workload("test", *shape, causal=causal), Layout(threads=threads)) is None


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", AVAILABLE)
def test_agrees_with_the_oracle(method, shape, causal, threads):
    if not feasible(method, shape, causal, threads):
        pytest.skip("the method says it can't")
    q, k, v = draw(*shape)
    has_lse = method != "torch_sdpa"
    result = attention(q, k, v, causal=causal, method=method, threads=threads, return_lse=has_lse)
    out, lse = result if has_lse else (result, None)
    assert_right(out, lse, q, k, v, causal=causal)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("shape", ["one key", "one query, several splits", "many tiles", "head_dim 59", "group of 7"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("method", AVAILABLE)
def test_agrees_with_the_oracle_in_16_bits(method, dtype, shape, causal):
    if dtype not in METHODS[method].dtypes:
        pytest.skip(f"{method} has no {dtype}")
    if not feasible(method, SHAPES[shape], causal, 2):
        pytest.skip("the method says it can't")
    q, k, v = (x.astype(numpy_dtype(dtype)) for x in draw(*SHAPES[shape]))
    out = attention(q, k, v, causal=causal, method=method, threads=2)
    assert_right(out, None, q, k, v, causal=causal)


@pytest.mark.parametrize("block", [16, 17, 64, 128, 1000, 4096])
@pytest.mark.parametrize("shape", [(1, 2, 1, 150, 333, 32), (1, 1, 1, 1, 2500, 64)], ids=["prefill", "query"])
def test_streaming_agrees_with_any_block(shape, block):
    q, k, v = draw(*shape)
    out, lse = attention(q, k, v, causal=True, block=block, return_lse=True)
    assert_right(out, lse, q, k, v, causal=True)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("shape", [SHAPES["one query, several splits"], SHAPES["head_dim 59"], SHAPES["many tiles"]])
@pytest.mark.parametrize("method", SAME_BITS)
def test_same_bits_on_any_number_of_threads(method, shape, causal):
    if not feasible(method, shape, causal, 4):
        pytest.skip("the method says it can't")
    q, k, v = draw(*shape)
    alone = attention(q, k, v, causal=causal, method=method, threads=1, return_lse=True)
    for threads in (2, 3, 4):
        together = attention(q, k, v, causal=causal, method=method, threads=threads, return_lse=True)
        for expected, found in zip(alone, together, strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", AVAILABLE)
def test_scale_of_the_caller(method):
    q, k, v = draw(1, 2, 1, 16, 60, 32)
    out = attention(q, k, v, method=method, scale=0.5)
    assert_right(out, None, q, k, v, scale=0.5)
    assert np.abs(out - attention(q, k, v, method=method)).max() > 0.01


@pytest.mark.parametrize("method", AVAILABLE)
def test_prepared_call_reads_its_inputs_anew(method):
    from streaming_attention.inputs import make_inputs, refill

    inputs = make_inputs(Workload("test", 1, 2, 1, 16, 60, 32), seed=1)
    prepared = METHODS[method].load()(inputs, 2, None, {})
    first = prepared.run().copy()
    refill(inputs, seed=2)
    second = prepared.run()
    assert_right(second, None, inputs.q, inputs.k, inputs.v)
    assert not np.array_equal(first, second)
    refill(inputs, seed=1)
    if METHODS[method].same_bits:
        np.testing.assert_array_equal(prepared.run(), first)
    prepared.close()


@pytest.mark.parametrize("method", AVAILABLE)
@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (0, 0)], ids=["no query", "no key", "neither"])
def test_empty(method, sizes):
    q, k, v = draw(2, 4, 2, *sizes, 16)
    out = attention(q, k, v, method=method, threads=2)
    assert out.shape == q.shape
    assert not out.any()
