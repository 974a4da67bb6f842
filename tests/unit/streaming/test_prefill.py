"""The prefill kernel against the oracle, on every instruction set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import assert_right, draw

from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming.front import prepare_prefill, run_prefill


def prefill(q, k, v, isa=None, **options):
    """Output and log-sum-exp, from arrays filled with a value that must not survive."""
    out, lse = np.full(q.shape, 7, np.float32), np.full(q.shape[:3], 7, np.float32)
    run_prefill(q, k, v, out, lse, isa=isa or select_isa(), **options)
    return out, lse


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_dim", [1, 3, 16, 59, 80, 96, 111, 128])
def test_any_head_dim(isa, head_dim, causal):
    q, k, v = draw(heads=2, kv_heads=1, queries=37, keys=141, head_dim=head_dim)
    assert_right(*prefill(q, k, v, isa, causal=causal), q, k, v, causal=causal)


@pytest.mark.parametrize("group", [1, 3, 5, 7, 27])
def test_any_group(isa, group):
    q, k, v = draw(2, 2 * group, 2, queries=9, keys=50, head_dim=32)
    assert_right(*prefill(q, k, v, isa, causal=True), q, k, v, causal=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 127, 128, 129, 257])
@pytest.mark.parametrize("queries", [1, 47, 48, 49, 200])
def test_lengths_around_blocks_and_strips(queries, keys, causal):
    q, k, v = draw(queries=queries, keys=keys, head_dim=64)
    assert_right(*prefill(q, k, v, causal=causal), q, k, v, causal=causal)


def test_no_key_at_all(isa):
    q, k, v = draw(queries=5, keys=0)
    out, lse = prefill(q, k, v, isa)
    assert (out == 0).all() and (lse == -np.inf).all()


def test_rows_that_see_no_key(isa):
    q, k, v = draw(queries=60, keys=10, head_dim=64)
    out, lse = prefill(q, k, v, isa, causal=True)
    assert (out[:, :, :50] == 0).all() and (lse[:, :, :50] == -np.inf).all()
    assert_right(out, lse, q, k, v, causal=True)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_bits_do_not_depend_on_threads(threads):
    q, k, v = draw(2, 4, 2, queries=333, keys=500, head_dim=80)
    alone, together = prefill(q, k, v, causal=True), prefill(q, k, v, causal=True, threads=threads)
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_strides_and_layouts_without_copies(isa):
    q, k, v = draw(2, 4, 2, queries=50, keys=150, head_dim=48)
    expected = prefill(q, k, v, isa, causal=True)[0]
    tokens_first = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
    out = np.empty_like(tokens_first[0])
    run_prefill(*tokens_first, out, causal=True, layout="bthd", isa=isa)
    np.testing.assert_array_equal(out.swapaxes(1, 2), expected)
    wide = [np.repeat(x, 2, axis=-1)[..., ::2] for x in (q, k, v)]
    np.testing.assert_array_equal(prefill(*wide, isa, causal=True)[0], expected)


def test_unaligned_arrays(isa):
    q, k, v = draw(queries=50, keys=150, head_dim=64)
    shifted = [np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape) for x in (q, k, v)]
    np.testing.assert_array_equal(prefill(*shifted, isa)[0], prefill(q, k, v, isa)[0])


def test_large_logits(isa):
    q, k, v = draw(queries=30, keys=200, head_dim=32)
    q *= 3e3
    assert_right(*prefill(q, k, v, isa), q, k, v)


def test_nan_stays_in_the_rows_that_see_it(isa):
    q, k, v = draw(queries=100, keys=100, head_dim=32)
    clean = prefill(q, k, v, isa, causal=True)[0]
    k[0, 0, 60, 3] = v[0, 0, 80, 5] = np.nan
    out = prefill(q, k, v, isa, causal=True)[0]
    assert np.isnan(out[0, 0, 60:]).all()
    np.testing.assert_array_equal(out[0, 0, :60], clean[0, 0, :60])


def test_a_window_is_the_same_as_the_keys_in_it():
    q, k, v = draw(queries=90, keys=90, head_dim=32)
    out, _ = prefill(q, k, v, window=(20, 3))
    for row in (0, 10, 47, 48, 89):
        seen = slice(max(0, row - 20), row + 4)
        alone, _ = prefill(q[:, :, row : row + 1], k[:, :, seen], v[:, :, seen])
        np.testing.assert_allclose(out[:, :, row], alone[:, :, 0], rtol=1e-4, atol=1e-5)


@settings(max_examples=25)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 120), st.integers(1, 300), st.integers(1, 70), st.booleans()
)
def test_any_shape(kv_heads, group, queries, keys, head_dim, causal):
    q, k, v = draw(1, kv_heads * group, kv_heads, queries, keys, head_dim)
    assert_right(*prefill(q, k, v, causal=causal), q, k, v, causal=causal)


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
@pytest.mark.parametrize("varying", [False, True])
def test_memory_at_256k_tokens(kind, varying):
    """What a launch asks for: scratch of every thread, a list of tasks; nothing that grows with queries x keys."""
    asked = {}
    for tokens in (2**10, 2**18):
        shape = (tokens, 16, 128) if varying else (1, 16, tokens, 128)
        array = np.broadcast_to(kind(0), shape)
        starts = np.array([0, tokens // 3, tokens], np.int32) if varying else None
        call = prepare_prefill(array, array, array, array, causal=True, threads=8, cu_seqlens_q=starts)
        *_, tasks, threads, scratch = call.arguments
        asked[tokens] = threads * scratch + 8 * tasks
    assert asked[2**18] < 8 * 2**20
    assert asked[2**18] < asked[2**10] + 8 * 2**18  # strips, and a number per task of hundreds of rows
