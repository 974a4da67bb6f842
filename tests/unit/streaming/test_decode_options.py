"""Decode's options, formats of Q and O, and what must not be touched or change anything."""

import numpy as np
import pytest
from guarded import guarded
from problems import draw
from textbook import assert_as_good, meaning, rounding_to, to_bf16

from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming.decode import SPLIT
from streaming_attention.streaming.front import prepare_decode, run_decode

SLOPES = np.array([0.5, 0.25, 1.0, 0.0], np.float32)
SINKS = np.array([1.0, -3.0, 40.0, -np.inf], np.float32)
OPTIONS = {
    "softcap": {"softcap": 3.0},
    "slopes": {"slopes": SLOPES},
    "sinks": {"sinks": SINKS},
    "window": {"window": (70, 5)},
    "causal window": {"window": (70, None), "causal": True},
    "one key": {"window": (0, 0)},
    "offset": {"offset": 30, "causal": True},
    "negative scale": {"scale": -0.3},
    "all": {"softcap": 5.0, "slopes": SLOPES, "sinks": SINKS, "window": (50, None), "causal": True, "scale": 0.5},
}
FORMATS = {"fp32": lambda x: x, "bf16": to_bf16, "fp16": lambda x: x.astype(np.float16)}


def decode(arrays, isa=None, storage=np.float32, **options):
    """Output and log-sum-exp, from arrays filled with a value that must not survive."""
    out, lse = np.full(arrays[0].shape, 7, storage), np.full(arrays[0].shape[:3], 7, np.float32)
    run_decode(*arrays, out, lse, isa=isa or select_isa(), **({"causal": False} | options))
    return out, lse


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("queries, keys", [(1, 100), (1, SPLIT + 70), (3, SPLIT + 70)])
def test_options(isa, name, queries, keys):
    arrays = draw(2, 4, 2, queries, keys, 64)
    assert_as_good(*decode(arrays, isa, **OPTIONS[name]), arrays, **OPTIONS[name])


def test_a_sink_is_what_a_row_without_keys_has():
    q, k, v = draw(1, 4, 2, 1, 0, 64)
    out, lse = decode((q, k, v), sinks=SINKS)
    assert not out.any()
    np.testing.assert_allclose(lse[0, :, 0], SINKS, rtol=3e-7)


@pytest.mark.parametrize("storage", FORMATS)
def test_formats_of_queries_and_outputs(storage):
    arrays = [FORMATS[storage](x) for x in draw(1, 4, 2, 2, 300, 64)]
    wide, lse = decode([meaning(x) for x in arrays])
    narrow, narrow_lse = decode(arrays, storage=arrays[0].dtype)
    np.testing.assert_array_equal(meaning(narrow), rounding_to(storage)(wide))
    np.testing.assert_array_equal(narrow_lse, lse)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("window", [(None, None), (100, None)])
def test_what_a_query_does_not_see_does_not_reach_it(isa, value, window):
    q, k, v = draw(1, 4, 2, 3, 1200, 64)
    clean, _ = decode((q, k, v), isa, causal=True, window=window)
    k[:, :, 1199], v[:, :, 1199] = value, value
    v[:, :, 1198] = value
    if window[0]:
        k[:, :, :1000] = v[:, :, :1000] = value
    dirty, _ = decode((q, k, v), isa, causal=True, window=window)
    np.testing.assert_array_equal(dirty[:, :, 0], clean[:, :, 0])
    assert not np.isfinite(dirty[:, :, 1:]).any()


def test_splits_that_nobody_sees_change_nothing():
    q, k, v = draw(1, 2, 1, 1, 5 * SPLIT, 64)
    far, near = (decode((q, x[0], x[1]), window=(99, 0)) for x in ((k, v), (k[:, :, -100:], v[:, :, -100:])))
    np.testing.assert_allclose(far[0], near[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("page", [16, 48])
def test_scales_are_paged_like_their_keys(rng, page):
    q, k, v = draw(2, 4, 2, 1, 96, 64)
    codes = [(30 * x).astype(np.int8) for x in (k, v)]
    scales = [rng.uniform(0.01, 0.05, x.shape[:3]).astype(np.float32) for x in (k, v)]
    expected = decode((q, *codes), k_scale=scales[0], v_scale=scales[1])
    count = 96 // page
    table = rng.permutation(2 * count).astype(np.int32).reshape(2, count)

    def paged(array):
        pages = np.empty((2 * count, 2, page, *array.shape[3:]), array.dtype)
        for b, n in np.ndindex(2, count):
            pages[table[b, n]] = array[b, :, n * page : (n + 1) * page]
        return pages

    k_scale, v_scale = map(paged, scales)
    options = {"k_scale": k_scale, "v_scale": v_scale, "block_table": table, "kv_layout": "bhtd"}
    found = decode((q, *map(paged, codes)), **options)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_prepared_call_can_be_repeated():
    arrays = draw(1, 4, 2, 1, 3 * SPLIT, 64)
    expected, _ = decode(arrays)
    out = np.empty_like(expected)
    call = prepare_decode(*arrays, out, threads=2)
    for _ in range(3):
        out[:] = 7
        call()
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("head_dim", [3, 59, 64])
@pytest.mark.parametrize("keys", [1, 5, 100, SPLIT + 3])
def test_nothing_outside_the_arrays_is_touched(isa, head_dim, keys, at_end):
    arrays = draw(1, 6, 2, 1, keys, head_dim)
    expected, lse = decode(arrays, isa)
    walled = [guarded(x, at_end) for x in (*arrays, expected, lse)]
    run_decode(*walled, isa=isa)
    np.testing.assert_array_equal(walled[3], expected)
