"""The backward kernels against float64, on every instruction set."""

import numpy as np
import pytest
from gradients import assert_gradients, differentiate
from guarded import guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import draw

from streaming_attention.simd.isa import AVX2, AVX512_BF16, select_isa
from streaming_attention.streaming.backward import BLOCK, backward_task, backward_words
from streaming_attention.streaming.backward_front import choose_kernel, chunk_of, run_backward
from streaming_attention.streaming.front import run_prefill


def problem(*sizes, **named):
    """dout, q, k, v."""
    q, k, v = draw(*sizes, **named)
    return np.random.default_rng(9).standard_normal(q.shape, dtype=np.float32), q, k, v


def backward(dout, q, k, v, isa=None, threads=1, out=None, lse=None, **options):
    """Gradients, from arrays filled with a value that must not survive; out and lse as a forward pass rounds them."""
    if out is None:
        out, lse = (x.astype(np.float32) for x in differentiate(dout, q, k, v, **options)[3:])
    found = [np.full(x.shape, 7, np.float32) for x in (q, k, v)]
    run_backward(dout, q, k, v, out, lse, *found, isa=isa or select_isa(), threads=threads, **options)
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_dim", [1, 32, 59, 80, 111, 128, 256])
def test_any_head_dim(isa, head_dim, causal):
    given = problem(heads=2, kv_heads=1, queries=61, keys=141, head_dim=head_dim)
    assert_gradients(backward(*given, isa, causal=causal), *given, causal=causal)


@pytest.mark.parametrize("group", [1, 3, 7])
def test_key_gradients_are_sums_over_the_group(isa, group):
    given = problem(2, 2 * group, 2, queries=9, keys=50, head_dim=32)
    assert_gradients(backward(*given, isa, causal=True), *given, causal=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [1, 7, 95, 96, 97, 193])
@pytest.mark.parametrize("queries", [1, 47, 49, 96, 97, 200])
def test_lengths_around_blocks_and_strips(queries, keys, causal):
    given = problem(queries=queries, keys=keys, head_dim=32)
    assert_gradients(backward(*given, causal=causal), *given, causal=causal)


@pytest.mark.parametrize("view", [{"causal": True}, {"window": (40, 10)}])
def test_several_chunks_of_keys(isa, view):
    assert chunk_of(500, 64, 4, 3) < 250
    given = problem(2, 4, 2, queries=300, keys=500, head_dim=64)
    assert_gradients(backward(*given, isa, threads=3, **view), *given, **view)


def test_chunks_are_as_long_as_caches_and_threads_allow():
    assert chunk_of(1000, 128, heads=8, threads=1) == chunk_of(1000, 128, heads=8, threads=4) == 11 * BLOCK
    assert 4096 / 5 < chunk_of(4096, 128, heads=2, threads=1) < 4096 / 3
    assert chunk_of(1000, 128, heads=1, threads=100) == chunk_of(0, 128, heads=0, threads=3) == BLOCK
    assert 3 * -(-4096 // chunk_of(4096, 128, heads=3, threads=2)) >= 4 * 2


def test_queries_that_see_no_key_among_several_chunks_get_zeros():
    given = problem(1, 2, 1, queries=700, keys=250, head_dim=32)
    found = backward(*given, threads=4, causal=True)
    assert (found[0][:, :, :450] == 0).all()
    assert_gradients(found, *given, causal=True)


@pytest.mark.parametrize(("queries", "keys"), [(5, 0), (0, 5), (0, 0)])
def test_nothing_to_see_or_to_be_seen_by(queries, keys):
    found = backward(*problem(2, 2, 1, queries, keys, 16), causal=True)
    assert all((gradient == 0).all() for gradient in found)


def test_rows_that_see_no_key_get_and_give_nothing(isa):
    given = problem(queries=60, keys=10, head_dim=64)
    found = backward(*given, isa, causal=True)
    assert (found[0][:, :, :50] == 0).all()
    assert_gradients(found, *given, causal=True)


@pytest.mark.parametrize("window", [(20, 3), (0, 0), (None, 5), (150, 0)])
def test_windows(window):
    given = problem(1, 2, 1, 333, 300, 32)
    assert_gradients(backward(*given, window=window), *given, window=window)


def test_scale_and_large_logits(isa):
    dout, q, k, v = problem(queries=30, keys=200, head_dim=32)
    assert_gradients(backward(dout, q, k, v, isa, scale=0.7), dout, q, k, v, scale=0.7)
    q *= 30
    assert_gradients(backward(dout, q, k, v, isa), dout, q, k, v)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("view", [{"causal": True}, {"window": (100, 30)}, {}])
def test_bits_do_not_depend_on_threads(threads, view):
    given = problem(2, 2, 1, queries=333, keys=700, head_dim=80)
    alone, together = backward(*given, **view), backward(*given, threads=threads, **view)
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("head_dim", [48, 59])
def test_strides_layouts_and_unaligned_arrays_give_the_same_bits(head_dim):
    dout, q, k, v = problem(2, 4, 2, queries=50, keys=150, head_dim=head_dim)
    *expected, out, lse = differentiate(dout, q, k, v, causal=True)
    out, lse = out.astype(np.float32), lse.astype(np.float32)
    expected = backward(dout, q, k, v, out=out, lse=lse, causal=True)
    arrays = dout, q, k, v, out
    tokens_first = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in arrays]
    found = [np.empty_like(x) for x in tokens_first[1:4]]
    run_backward(*tokens_first, lse, *found, causal=True, layout="bthd")
    wide = [np.repeat(x, 2, axis=-1)[..., ::2] for x in arrays]
    strided = [np.repeat(x, 2, axis=-1)[..., ::2] for x in arrays[1:4]]
    run_backward(*wide, lse, *strided, causal=True)
    shifted = [np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape) for x in arrays]
    unaligned = [np.empty_like(x) for x in arrays[1:4]]
    run_backward(*shifted, lse, *unaligned, causal=True)
    for reference, *others in zip(expected, (x.swapaxes(1, 2) for x in found), strided, unaligned, strict=True):
        assert all((other == reference).all() for other in others)


def test_nothing_beside_the_gradients_is_written():
    dout, q, k, v = problem(1, 1, 1, queries=50, keys=37, head_dim=32)
    out, lse = (x.astype(np.float32) for x in differentiate(dout, q, k, v)[3:])
    around = [np.full((1, 1, x.shape[2] + 40, 32 + 16), 7, np.float32) for x in (q, k, v)]
    found = [x[:, :, 20:-20, :32] for x in around]
    run_backward(dout, q, k, v, out, lse, *found)
    assert_gradients(found, dout, q, k, v)
    for array in around:
        array[:, :, 20:-20, :32] = 7
        assert (array == 7).all()


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize(("queries", "keys", "head_dim"), [(49, 97, 32), (1, 1, 1), (95, 33, 59), (50, 200, 128)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_no_byte_outside_the_arrays_is_touched(isa, dtype, queries, keys, head_dim, at_end):
    arrays = problem(1, 2, 1, queries, keys, head_dim)
    dout, q, k, v = (as_bf16(x)[0] if dtype == np.uint16 else x.astype(dtype) for x in arrays)
    lse = np.zeros(q.shape[:3], np.float32)
    expected = [np.empty_like(x) for x in (q, k, v)]
    run_backward(dout, q, k, v, q, lse, *expected, causal=True, isa=isa)
    walled = [guarded(x, at_end) for x in (dout, q, k, v, q, lse)]
    found = [guarded(np.zeros_like(x), at_end) for x in expected]
    run_backward(*walled, *found, causal=True, isa=isa)
    for gradient, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(gradient, reference)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_hidden_rows_do_not_leak(isa, bad):
    """Causal: key 60 is seen by queries 60 and later; query 30 sees the keys up to 30."""
    dout, q, k, v = problem(queries=120, keys=120, head_dim=32)
    clean = backward(dout, q, k, v, isa, causal=True)
    out, lse = (x.astype(np.float32) for x in differentiate(dout, q, k, v, causal=True)[3:])
    k[0, 0, 60, 3] = v[0, 0, 60, 5] = bad
    lse[0, 0, 60:], out[0, 0, 60:] = np.nan, np.nan
    found = backward(dout, q, k, v, isa, out=out, lse=lse, causal=True)
    np.testing.assert_allclose(found[0][0, 0, :60], clean[0][0, 0, :60], rtol=1e-4, atol=1e-5)
    assert np.isnan(found[0][0, 0, 60:]).all()

    dout, q, k, v = problem(queries=120, keys=120, head_dim=32)
    out, lse = (x.astype(np.float32) for x in differentiate(dout, q, k, v, causal=True)[3:])
    q[0, 0, 30, 3] = dout[0, 0, 30, 5] = bad
    lse[0, 0, 30], out[0, 0, 30] = np.nan, np.nan
    found = backward(dout, q, k, v, isa, out=out, lse=lse, causal=True)
    for gradient, before in zip(found[1:], clean[1:], strict=True):
        np.testing.assert_allclose(gradient[0, 0, 31:], before[0, 0, 31:], rtol=1e-4, atol=1e-5)
        assert np.isnan(gradient[0, 0, :31]).any(axis=1).all()
    rest = np.delete(np.arange(120), 30)
    np.testing.assert_allclose(found[0][0, 0, rest], clean[0][0, 0, rest], rtol=1e-4, atol=1e-5)


def as_bf16(array):
    """Bits of the nearest bfloat16, and their values."""
    bits = array.astype(np.float32).view(np.uint32)
    bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


def value_in_bf16(array):
    return as_bf16(array)[1]


def as_fp16(array):
    return array.astype(np.float16), array.astype(np.float16).astype(np.float32)


def halves(stored, given, isa=None, threads=1, **options):
    """Gradients of arrays in 16 bits, as fp32, and the values that the arrays hold."""
    bits, meant = zip(*map(stored, given), strict=True)
    out, lse = differentiate(*meant, **options)[3:]
    found = [np.empty(x.shape, bits[0].dtype) for x in bits[1:]]
    run_backward(*bits, stored(out)[0], lse.astype(np.float32), *found, isa=isa, threads=threads, **options)
    if bits[0].dtype == np.uint16:
        found = [from_bf16(x) for x in found]
    return [x.astype(np.float32) for x in found], meant


@pytest.mark.parametrize("head_dim", [64, 72, 59, 1])
@pytest.mark.parametrize("stored", [as_bf16, as_fp16])
def test_half_precision_storage(isa, stored, head_dim):
    found, meant = halves(stored, problem(1, 4, 2, 75, 130, head_dim), isa, causal=True)
    written = value_in_bf16 if stored is as_bf16 and isa.has_bf16_dot else np.asarray
    assert_gradients(found, *meant, causal=True, rounded=lambda x: stored(x)[1], written=written)


def test_tiles_multiply_bf16_where_all_arrays_hold_it_and_the_cpu_can():
    bf16, fp32 = np.dtype(np.uint16), np.dtype(np.float32)
    assert choose_kernel([bf16] * 5, AVX512_BF16) == (AVX512_BF16, backward_words)
    assert choose_kernel([fp32] * 5, AVX512_BF16) == (AVX512_BF16, backward_task)
    assert choose_kernel([bf16] * 5, AVX2) == (AVX2, backward_task)
    assert choose_kernel([bf16] * 5)[1] is (backward_task if AVX512_BF16.missing() else backward_words)


@pytest.mark.parametrize("view", [{}, {"causal": True}, {"window": (40, 11)}])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (47, 97), (49, 8), (97, 193), (200, 95), (60, 10)])
def test_bf16_lengths_around_blocks_strips_and_pairs(queries, keys, view):
    found, meant = halves(as_bf16, problem(2, 2, 1, queries, keys, 32), **view)
    written = np.asarray if AVX512_BF16.missing() else value_in_bf16
    assert_gradients(found, *meant, **view, rounded=value_in_bf16, written=written)


@pytest.mark.parametrize("view", [{"causal": True}, {"window": (100, 30)}, {}])
def test_bf16_bits_do_not_depend_on_threads(view):
    given = problem(2, 2, 1, queries=333, keys=700, head_dim=80)
    alone, together = (halves(as_bf16, given, threads=threads, **view)[0] for threads in (1, 3))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_hidden_rows_of_bf16_do_not_leak(bad):
    """Causal: key 60 is seen by queries 60 and later; query 30 sees the keys up to 30."""
    bits = [as_bf16(x)[0] for x in problem(queries=121, keys=121, head_dim=32)]
    out, lse = differentiate(*map(from_bf16, bits), causal=True)[3:]
    out, lse = as_bf16(out)[0], lse.astype(np.float32)
    clean = gradients_of(bits, out, lse)
    hidden = [x.copy() for x in bits]
    hidden[2][0, 0, 60, 3] = hidden[3][0, 0, 60, 5] = as_bf16(np.float32(bad))[0]
    found = gradients_of(hidden, out, lse)
    np.testing.assert_array_equal(found[0][0, 0, :60], clean[0][0, 0, :60])
    assert not np.isfinite(found[0][0, 0, 60:]).any()

    hidden = [x.copy() for x in bits]
    hidden[0][0, 0, 30, 5] = hidden[1][0, 0, 30, 3] = as_bf16(np.float32(bad))[0]
    found = gradients_of(hidden, out, lse)
    for gradient, before in zip(found[1:], clean[1:], strict=True):
        np.testing.assert_allclose(gradient[0, 0, 31:], before[0, 0, 31:], rtol=1e-2)
        assert not np.isfinite(gradient[0, 0, :31]).all(axis=1).any()


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def gradients_of(bits, out, lse):
    """Causal gradients of bfloat16 arrays, as fp32."""
    found = [np.empty(x.shape, np.uint16) for x in bits[1:]]
    run_backward(*bits, out, lse, *found, causal=True)
    return [from_bf16(x) for x in found]


def test_from_the_forward_pass():
    dout, q, k, v = problem(1, 2, 1, queries=200, keys=260, head_dim=64)
    out, lse = np.empty_like(q), np.empty(q.shape[:3], np.float32)
    run_prefill(q, k, v, out, lse, causal=True)
    assert_gradients(backward(dout, q, k, v, out=out, lse=lse, causal=True), dout, q, k, v, causal=True)


@settings(max_examples=25)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 120), st.integers(1, 200), st.integers(8, 70), st.booleans()
)
def test_any_shape(kv_heads, group, queries, keys, head_dim, causal):
    """From 8 dims on, several batches: in fewer numbers the textbooks' largest errors are matters of luck."""
    given = problem(4, kv_heads * group, kv_heads, queries, keys, head_dim)
    assert_gradients(backward(*given, causal=causal), *given, causal=causal)


@settings(max_examples=15)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 120), st.integers(1, 200), st.integers(8, 70), st.booleans()
)
def test_any_shape_in_bf16(kv_heads, group, queries, keys, head_dim, causal):
    found, meant = halves(as_bf16, problem(4, kv_heads * group, kv_heads, queries, keys, head_dim), causal=causal)
    written = np.asarray if AVX512_BF16.missing() else value_in_bf16
    assert_gradients(found, *meant, causal=causal, rounded=value_in_bf16, written=written)
