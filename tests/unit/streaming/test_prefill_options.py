"""Options of prefill, formats, pages and sequences of varying length, against the textbook with the same options."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import draw
from textbook import assert_as_good, meaning, rounding_to, to_bf16

from streaming_attention.simd.isa import AVX2, AVX512, AVX512_BF16, PORTABLE
from streaming_attention.streaming.front import run_prefill

FORMATS = {"fp32": lambda x: x, "bf16": to_bf16, "fp16": lambda x: x.astype(np.float16)}
SLOPES = np.array([0.5, 0.25, 1.0, 0.0], np.float32)
SINKS = np.array([1.0, -3.0, 40.0, -np.inf], np.float32)
OPTIONS = {
    "softcap": {"softcap": 3.0},
    "slopes": {"slopes": SLOPES},
    "sinks": {"sinks": SINKS},
    "window": {"window": (20, 7)},
    "causal window": {"window": (20, None), "causal": True},
    "offset": {"offset": 30, "causal": True},
    "negative scale": {"scale": -0.3},
    "no scale": {"scale": 0.0},
    "all": {"softcap": 5.0, "slopes": SLOPES, "sinks": SINKS, "window": (50, None), "causal": True, "scale": 0.5},
}
# Kernels that differ: every ISA with fp32 tiles, and words.
KERNELS = [(AVX512, "fp32"), (AVX2, "fp32"), (PORTABLE, "fp32"), (AVX512_BF16, "bf16")]


def runs_here(isa):
    if missing := isa.missing():
        pytest.skip(f"this CPU lacks {', '.join(missing)}")


def prefill(arrays, isa=None, storage="fp32", **options):
    """Output in a format and log-sum-exp, from arrays filled with a value that must not survive."""
    shape = arrays[0].shape
    out = np.full(shape, 7, {"fp32": np.float32, "bf16": np.uint16, "fp16": np.float16}[storage])
    lse = np.full(shape[:3] if len(shape) == 4 else shape[1::-1], 7, np.float32)
    run_prefill(*arrays, out, lse, isa=isa, **options)
    return out, lse


def stored(storage, *shape, seed=0):
    return [FORMATS[storage](x) for x in draw(*shape, seed=seed)]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("isa, storage", KERNELS, ids=lambda x: getattr(x, "name", x))
def test_options(isa, storage, name):
    runs_here(isa)
    arrays = stored(storage, 2, 4, 2, 70, 150, 40)
    assert_as_good(*prefill(arrays, isa, **OPTIONS[name]), arrays, storage, **OPTIONS[name])


def test_a_sink_is_what_a_row_without_keys_has():
    arrays = stored("fp32", 1, 4, 2, 60, 10, 32)
    sinks = np.array([1.5, -3, 40, 0], np.float32)
    out, lse = prefill(arrays, sinks=sinks, causal=True)
    assert (out[:, :, :50] == 0).all()
    np.testing.assert_allclose(lse[0, :, :50], np.repeat(sinks[:, None], 50, 1), rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("head_dim", [1, 2, 31, 32, 59, 80, 96, 111, 128, 256])
@pytest.mark.parametrize("storage", ["bf16", "fp16"])
def test_any_head_dim_in_16_bits(storage, head_dim):
    arrays = stored(storage, 1, 2, 1, 37, 141, head_dim)
    assert_as_good(*prefill(arrays, storage=storage, causal=True), arrays, storage, causal=True)


@pytest.mark.parametrize("isa", [AVX512, AVX2, PORTABLE], ids=lambda isa: isa.name)
@pytest.mark.parametrize("storage", ["bf16", "fp16"])
def test_16_bits_without_products_of_their_own(isa, storage):
    runs_here(isa)
    arrays = stored(storage, 1, 3, 1, 70, 133, 64)
    out, lse = prefill(arrays, isa, causal=True)
    wide, wide_lse = prefill([meaning(x) for x in arrays], isa, causal=True)
    np.testing.assert_array_equal(out, wide)
    np.testing.assert_array_equal(lse, wide_lse)
    narrow, _ = prefill(arrays, isa, storage, causal=True)
    np.testing.assert_array_equal(meaning(narrow), rounding_to(storage)(wide))


@pytest.mark.parametrize("keys", [0, 1, 2, 3, 127, 128, 129, 255, 257])
@pytest.mark.parametrize("queries", [1, 47, 49])
def test_odd_numbers_of_keys_in_words(queries, keys):
    arrays = stored("bf16", 1, 2, 2, queries, keys, 34)
    assert_as_good(*prefill(arrays, causal=False), arrays, "bf16")
    assert_as_good(*prefill(arrays, causal=True), arrays, "bf16", causal=True)


@pytest.mark.parametrize("group", [3, 7, 27])
def test_groups_in_words(group):
    arrays = stored("bf16", 2, 2 * group, 2, 9, 50, 32)
    assert_as_good(*prefill(arrays, causal=True), arrays, "bf16", causal=True)


@pytest.mark.parametrize("storage", FORMATS)
def test_strides_layouts_and_alignment(storage):
    arrays = stored(storage, 2, 4, 2, 50, 150, 48)
    expected, _ = prefill(arrays, causal=True, storage=storage)
    tokens_first = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in arrays]
    out = np.empty_like(tokens_first[0])
    run_prefill(*tokens_first, out, causal=True, layout="bthd")
    np.testing.assert_array_equal(out.swapaxes(1, 2), expected)
    wide = [np.repeat(x, 2, axis=-1)[..., ::2] for x in arrays]
    out = np.empty((*expected.shape, 2), expected.dtype)
    run_prefill(*wide, out[..., 0], causal=True)
    np.testing.assert_array_equal(out[..., 0], expected)
    shifted = [np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape) for x in arrays]
    np.testing.assert_array_equal(prefill(shifted, causal=True, storage=storage)[0], expected)


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("queries, visible", [(1, 60), (1, 61), (100, 61)])
def test_what_nobody_sees_may_be_anything(storage, queries, visible):
    """NaN and infinity behind the mask, in any lane and in the other half of a word, change no bit."""
    arrays = stored(storage, 1, 2, 1, queries, 100, 33)
    options = {"causal": True, "offset": visible - queries}
    clean = prefill(arrays, **options)
    nan, infinity = FORMATS[storage](np.array([np.nan, np.inf], np.float32))
    for array in arrays[1:]:
        array[:, :, visible::2], array[:, :, visible + 1 :: 2] = nan, infinity
    for a, b in zip(prefill(arrays, **options), clean, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("storage", FORMATS)
def test_nan_stays_in_the_rows_that_see_it(storage):
    arrays = stored(storage, 1, 1, 1, 100, 100, 32)
    clean = prefill(arrays, causal=True)[0]
    nan = FORMATS[storage](np.array(np.nan, np.float32))
    arrays[1][0, 0, 60, 3] = arrays[2][0, 0, 81, 5] = nan
    out = prefill(arrays, causal=True)[0]
    assert np.isnan(out[0, 0, 60:]).all()
    np.testing.assert_array_equal(out[0, 0, :60], clean[0, 0, :60])


def test_the_other_half_of_a_word_belongs_to_the_next_strip():
    """A strip whose rows all see 61 keys shares its last word of V with a strip that sees 62."""
    q, k, v = stored("bf16", 1, 48, 1, 8, 68, 32)
    clean = prefill((q, k, v), causal=True)[0]
    v[:, :, 61] = to_bf16(np.float32(np.inf))
    out = prefill((q, k, v), causal=True)[0]
    np.testing.assert_array_equal(out[:, :, 0], clean[:, :, 0])
    assert not np.isfinite(out[:, :, 1:]).any()


def test_large_logits_in_words():
    q, k, v = draw(1, 1, 1, 30, 200, 32)
    arrays = [to_bf16(x) for x in (3e3 * q, k, v)]
    assert_as_good(*prefill(arrays), arrays, "bf16")


@pytest.mark.parametrize("storage", FORMATS)
def test_chunks_of_queries_are_one_call_to_the_bit(storage):
    q, k, v = stored(storage, 1, 4, 2, 150, 200, 48)
    options = {"causal": True, "window": (90, None), "slopes": SLOPES, "sinks": SINKS}
    whole = prefill((q, k, v), **options)
    for first, last in ((0, 1), (1, 60), (60, 149), (149, 150)):
        part = prefill((q[:, :, first:last], k, v), offset=first + 50, **options)
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[:, :, first:last])


def in_pages(array, page, rng):
    """A paged copy of (batch, kv_heads, keys, head_dim), filled up with NaN, and its table."""
    batch, kv_heads, keys, head_dim = array.shape
    count = -(-keys // page)
    table = rng.permutation(batch * count).astype(np.int32).reshape(batch, count)
    padded = np.zeros((batch, kv_heads, count * page, head_dim), array.dtype)
    padded[:, :, keys:] = to_bf16(np.array(np.nan)) if array.dtype == np.uint16 else np.nan
    padded[:, :, :keys] = array
    pages = np.empty((batch * count, page, kv_heads, head_dim), array.dtype)
    pages[table] = padded.reshape(batch, kv_heads, count, page, head_dim).transpose(0, 2, 3, 1, 4)
    return pages, table


@pytest.mark.parametrize("storage", FORMATS)
@pytest.mark.parametrize("page", [16, 48, 128, 512])
def test_pages_give_the_bits_of_contiguous_keys(storage, page, rng):
    lengths = np.array([530, 201], np.int32)
    q, k, v = stored(storage, 2, 4, 2, 60, 530, 34)
    (k_pages, table), (v_pages, _) = (in_pages(x, page, np.random.default_rng(3)) for x in (k, v))
    nan = FORMATS[storage](np.array(np.nan, np.float32))
    for pages in (k_pages, v_pages):
        for slot in range(201, table.shape[1] * page):
            pages[table[1, slot // page], slot % page] = nan
    out, lse = prefill((q, k_pages, v_pages), causal=True, block_table=table, seqlens=lengths)
    for b, keys in enumerate(lengths):
        one = slice(b, b + 1)
        expected = prefill((q[one], k[one, :, :keys], v[one, :, :keys]), causal=True)
        np.testing.assert_array_equal(out[one], expected[0])
        np.testing.assert_array_equal(lse[one], expected[1])


@pytest.mark.parametrize("storage", ["fp32", "bf16"])
@pytest.mark.parametrize("paged", [False, True])
def test_sequences_of_any_length_in_one_launch(storage, paged, rng):
    queries, keys = [0, 1, 70, 300, 5, 0, 129], [3, 1, 70, 350, 0, 0, 500]
    starts = [np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32) for lengths in (queries, keys)]
    q, k, v = (x[0].swapaxes(0, 1).copy() for x in stored(storage, 1, 4, 2, 505, sum(keys), 32))
    options = {"causal": True, "slopes": SLOPES}
    given = {"cu_seqlens_q": starts[0], "cu_seqlens_k": starts[1]}
    if paged:
        padded = np.zeros((2, len(keys), 2, max(keys), 32), k.dtype)
        for b, (start, length) in enumerate(zip(starts[1][:-1], keys, strict=True)):
            for target, source in zip(padded, (k, v), strict=True):
                target[b, :, :length] = source[start : start + length].swapaxes(0, 1)
        (k_in, table), (v_in, _) = (in_pages(x, 64, np.random.default_rng(3)) for x in padded)
        given = {"cu_seqlens_q": starts[0], "block_table": table, "seqlens": np.array(keys, np.int32)}
    else:
        k_in, v_in = k, v
    for threads in (1, 3):
        out, lse = prefill((q, k_in, v_in), threads=threads, **given, **options)
        for b in range(len(queries)):
            here, there = (slice(*s[b : b + 2]) for s in starts)
            alone = [x[None].swapaxes(1, 2) for x in (q[here], k[there], v[there])]
            expected, expected_lse = prefill(alone, **options)
            np.testing.assert_array_equal(out[here], expected[0].swapaxes(0, 1))
            np.testing.assert_array_equal(lse[:, here], expected_lse[0])


@settings(max_examples=25)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 120),
    st.integers(1, 300),
    st.integers(1, 70),
    st.booleans(),
    st.sampled_from([None, 0, 5, 100]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from(["fp32", "bf16"]),
)
def test_any_shape_and_option(kv_heads, group, queries, keys, head_dim, causal, left, softcap, storage):
    arrays = stored(storage, 1, kv_heads * group, kv_heads, queries, keys, head_dim)
    options = {"causal": causal, "window": (left, None), "softcap": softcap}
    assert_as_good(*prefill(arrays, **options), arrays, storage, **options)


def test_the_result_says_which_kernel_ran():
    for storage in FORMATS:
        arrays = stored(storage, 1, 1, 1, 2, 2, 16)
        words = storage == "bf16" and not AVX512_BF16.missing()
        name = run_prefill(*arrays, np.empty(arrays[0].shape, np.float32))
        assert name.startswith("streaming.prefill ")
        assert name.endswith("avx512_bf16 bf16" if words else " fp32")
