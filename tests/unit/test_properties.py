"""What must hold for any shape: hypothesis looks for the shape where it doesn't."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import draw, rounding

from streaming_attention import attention, merge
from streaming_attention.oracle import oracle

SHAPES = st.tuples(
    st.integers(1, 2),  # batch
    st.integers(1, 5),  # group
    st.integers(1, 3),  # kv_heads
    st.integers(1, 70),  # queries
    st.integers(1, 300),  # keys
    st.integers(1, 40),  # head_dim
)
SEEDS = st.integers(0, 2**31)
modest = settings(max_examples=40, deadline=None)


def problem(shape, seed):
    batch, group, kv_heads, queries, keys, head_dim = shape
    return draw(batch, group * kv_heads, kv_heads, queries, keys, head_dim, seed=seed)


def close(found, expected, q, k, v):
    assert np.abs(found - expected).max(initial=0) <= rounding(q, k, v)


@modest
@given(SHAPES, SEEDS, st.booleans(), st.sampled_from([16, 31, 128]))
def test_is_the_definition(shape, seed, causal, block):
    q, k, v = problem(shape, seed)
    out, lse = attention(q, k, v, causal=causal, block=block, return_lse=True)
    reference, reference_lse = oracle(q, k, v, causal=causal)
    close(out, reference, q, k, v)
    np.testing.assert_allclose(lse, reference_lse, rtol=1e-5, atol=1e-5)


@modest
@given(SHAPES, SEEDS)
def test_order_of_keys_does_not_matter(shape, seed):
    q, k, v = problem(shape, seed)
    order = np.random.default_rng(seed).permutation(k.shape[2])
    close(attention(q, k[:, :, order], v[:, :, order]), attention(q, k, v), q, k, v)


@modest
@given(SHAPES, SEEDS, st.floats(0, 1))
def test_keys_split_anywhere_merge_to_the_whole(shape, seed, place):
    q, k, v = problem(shape, seed)
    cut = round(place * k.shape[2])
    left = attention(q, k[:, :, :cut], v[:, :, :cut], return_lse=True)
    right = attention(q, k[:, :, cut:], v[:, :, cut:], return_lse=True)
    whole, whole_lse = attention(q, k, v, return_lse=True)
    out, lse = merge(*left, *right)
    assert out.dtype == lse.dtype == np.float32
    close(out, whole, q, k, v)
    np.testing.assert_allclose(lse, whole_lse, rtol=1e-5, atol=1e-5)


@modest
@given(SHAPES, SEEDS, st.data())
def test_merging_is_associative(shape, seed, data):
    q, k, v = problem(shape, seed)
    first, second = sorted(data.draw(st.tuples(st.integers(0, k.shape[2]), st.integers(0, k.shape[2]))))
    a, b, c = (
        attention(q, k[:, :, part], v[:, :, part], return_lse=True)
        for part in (slice(first), slice(first, second), slice(second, None))
    )
    close(merge(*merge(*a, *b), *c)[0], merge(*a, *merge(*b, *c))[0], q, k, v)


@modest
@given(SHAPES, SEEDS, st.floats(0, 1))
def test_queries_in_chunks_are_the_whole(shape, seed, place):
    """Causal: the first chunk sees as much less of the keys as the queries that follow it."""
    q, k, v = problem(shape, seed)
    queries, keys = q.shape[2], k.shape[2]
    cut = round(place * queries)
    seen = max(0, keys - (queries - cut))
    whole = attention(q, k, v, causal=True)
    close(attention(q[:, :, :cut], k[:, :, :seen], v[:, :, :seen], causal=True), whole[:, :, :cut], q, k, v)
    close(attention(q[:, :, cut:], k, v, causal=True), whole[:, :, cut:], q, k, v)


@modest
@given(SHAPES, SEEDS, st.booleans(), st.integers(2, 4))
def test_threads_do_not_change_a_bit(shape, seed, causal, threads):
    q, k, v = problem(shape, seed)
    alone, together = (attention(q, k, v, causal=causal, threads=count) for count in (1, threads))
    np.testing.assert_array_equal(together, alone)


@modest
@given(SHAPES, SEEDS)
def test_groups_are_repeated_heads(shape, seed):
    q, k, v = problem(shape, seed)
    group = q.shape[1] // k.shape[1]
    repeated = attention(q, np.repeat(k, group, axis=1), np.repeat(v, group, axis=1), causal=True)
    close(attention(q, k, v, causal=True), repeated, q, k, v)


def test_merging_two_empty_parts_is_empty():
    out, lse = np.zeros((1, 2, 3, 4), np.float32), np.full((1, 2, 3), -np.inf, np.float32)
    merged, merged_lse = merge(out, lse, out, lse)
    assert not merged.any()
    assert np.isneginf(merged_lse).all()


def test_merging_keeps_nan():
    part = attention(*draw(1, 1, 1, 2, 5, 4), return_lse=True)
    broken = part[0] * np.nan, part[1] * np.nan
    for pair in ((part, broken), (broken, part)):
        merged, merged_lse = merge(*pair[0], *pair[1])
        assert np.isnan(merged).all()
        assert np.isnan(merged_lse).all()


@pytest.mark.parametrize("argument", ["lse_a", "lse_b", "out_b"])
def test_merging_parts_that_do_not_fit_names_the_argument(argument):
    out, lse = attention(*draw(1, 1, 1, 2, 5, 4), return_lse=True)
    parts = {"out_a": out, "lse_a": lse, "out_b": out, "lse_b": lse}
    parts[argument] = parts[argument][..., :1]
    with pytest.raises(ValueError, match=f"^{argument}: shape"):
        merge(**parts)
