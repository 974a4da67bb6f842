"""Attention over pages: the same as over the keys in one piece, and nothing outside is read whatever comes."""

import numpy as np
import pytest
from guarded import guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from textbook import assert_as_good, meaning, to_bf16

from streaming_attention import attention, attention_paged

RNG = np.random.default_rng(3)
TABLE = np.array([[3, 0, -7], [1, 4, 2]], np.int32)
LENGTHS = np.array([20, 41], np.int32)
K, V = RNG.standard_normal((2, 5, 16, 2, 24), dtype=np.float32)
Q = RNG.standard_normal((2, 4, 1, 24), dtype=np.float32)


def in_one_piece(pages, table, length, page=16):
    """(1, kv_heads, length, head_dim) of one sequence, from pages of tokens first."""
    used = table[: -(-length // page)]
    return pages[used].reshape(-1, *pages.shape[2:])[:length].swapaxes(0, 1)[None]


def assert_same_as_in_one_piece(q, k, v, **options):
    out, lse = attention_paged(q, k, v, TABLE, LENGTHS, return_lse=True, **options)
    for b, length in enumerate(LENGTHS):
        parts = (in_one_piece(x, TABLE[b], length) for x in (k, v))
        alone, alone_lse = attention(q[b : b + 1], *parts, causal=True, return_lse=True, **options)
        np.testing.assert_array_equal(out[b], alone[0])
        np.testing.assert_array_equal(lse[b], alone_lse[0])


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "window": (9, 0)}])
def test_decode_is_the_same_as_in_one_piece(options):
    assert_same_as_in_one_piece(Q, K, V, **options)


def test_chunked_prefill_is_the_same_as_in_one_piece():
    assert_same_as_in_one_piece(RNG.standard_normal((2, 4, 19, 24), dtype=np.float32), K, V)


@pytest.mark.parametrize("kind", [np.float16, "bf16"])
def test_pages_of_16_bits(kind):
    k, v = (to_bf16(x) if kind == "bf16" else x.astype(kind) for x in (K, V))
    if kind == "bf16":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        out = attention_paged(Q, k.view(ml_dtypes.bfloat16), v.view(ml_dtypes.bfloat16), TABLE, LENGTHS)
    else:
        out = attention_paged(Q, k, v, TABLE, LENGTHS)
    np.testing.assert_array_equal(out, attention_paged(Q, meaning(k), meaning(v), TABLE, LENGTHS))


@pytest.mark.parametrize("queries", [1, 40, 90])
def test_int8_pages(queries):
    q = RNG.standard_normal((2, 4, queries, 24), dtype=np.float32)
    codes = [(30 * x).astype(np.int8) for x in (K, V)]
    scales = RNG.uniform(0.01, 0.05, (2, 5, 2, 16)).astype(np.float32)
    out, lse = attention_paged(
        q, *codes, TABLE, LENGTHS, k_scale=scales[0], v_scale=scales[1], return_lse=True, causal=False
    )
    meant = [code * scale.swapaxes(1, 2)[..., None] for code, scale in zip(codes, scales, strict=True)]
    for b, length in enumerate(LENGTHS):
        arrays = q[b : b + 1], *(in_one_piece(x, TABLE[b], length) for x in meant)
        assert_as_good(out[b : b + 1], lse[b : b + 1], arrays)
    seen = attention_paged(q, *codes, TABLE, LENGTHS, k_scale=scales[0], v_scale=scales[1], layout="bhtd")
    arrays = q[1:], *(in_one_piece(x, TABLE[1], 41) for x in meant)
    assert_as_good(seen[1:], None, arrays, causal=True)


def test_layouts():
    expected = attention_paged(Q, K, V, TABLE, LENGTHS)
    heads_first = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (K, V))
    found = attention_paged(Q, *heads_first, TABLE, LENGTHS, kv_layout="bhtd")
    np.testing.assert_array_equal(found, expected)
    found = attention_paged(Q.swapaxes(1, 2), K, V, TABLE, LENGTHS, layout="bthd")
    np.testing.assert_array_equal(found.swapaxes(1, 2), expected)


def test_what_a_page_holds_beyond_a_length_may_be_anything():
    expected = attention_paged(Q, K, V, TABLE, LENGTHS)
    k, v = K.copy(), V.copy()
    for pages in (k, v):
        pages[0, 4:] = pages[2, 9:] = np.nan  # 20 = 16 + 4, 41 = 32 + 9
    np.testing.assert_array_equal(attention_paged(Q, k, v, TABLE, LENGTHS), expected)


SCALES = np.ones((5, 2, 16), np.float32)
CODES = {"k_pages": K.astype(np.int8), "v_pages": V.astype(np.int8)}
BAD = {
    "k_pages: shape (5, 16, 2)": {"k_pages": K[..., 0]},
    "k_pages: dtype float64": {"k_pages": K.astype(np.float64)},
    "v_pages: shape (4, 16, 2, 24)": {"v_pages": V[:4]},
    "v_pages: dtype float16 differs": {"v_pages": V.astype(np.float16)},
    "k_pages: shape (5, 16, 2, 23)": {"k_pages": K[..., 1:], "v_pages": V[..., 1:]},
    "k_pages: pages hold 15 keys; allowed: multiples of 16": {"k_pages": K[:, 1:], "v_pages": V[:, 1:]},
    "k_pages: pages hold 0 keys": {"k_pages": K[:, :0], "v_pages": V[:, :0]},
    "heads of q: 3": {"q": Q[:, :3]},
    "heads of k_pages: 0": {"k_pages": K[:, :, :0], "v_pages": V[:, :, :0]},
    "kv_layout: 'tbhd'": {"kv_layout": "tbhd"},
    "block_table: dtype float32": {"block_table": TABLE.astype(np.float32)},
    "block_table: shape (3,)": {"block_table": TABLE[0]},
    "block_table: shape (1, 3), must have the batch of q first, 2": {"block_table": TABLE[:1]},
    "block_table: 5 at (1, 1) is not a page from 0 to 4": {"block_table": np.where(TABLE == 4, 5, TABLE)},
    "block_table: -1 at (1, 2)": {"block_table": np.where(TABLE == 2, -1, TABLE)},
    "block_table: -7 at (0, 2)": {"seqlens": np.array([33, 41])},
    "seqlens: shape (3,)": {"seqlens": np.array([1, 2, 3])},
    "seqlens: 49 is not from 0 to 48": {"seqlens": np.array([20, 49])},
    "seqlens: -1 is not from 0 to 48": {"seqlens": np.array([-1, 4])},
    "k_scale: given, but only int8 pages": {"k_scale": SCALES},
    "k_scale: None, must be given with int8 pages": CODES,
    "v_scale: shape (5, 16, 2), must be (5, 2, 16)": {**CODES, "k_scale": SCALES, "v_scale": SCALES.swapaxes(1, 2)},
    "out: shares memory with k_pages": {"out": K[:2, :4, :1]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named_with_their_value(message):
    arguments = {"q": Q, "k_pages": K, "v_pages": V, "block_table": TABLE, "seqlens": LENGTHS, **BAD[message]}
    with pytest.raises(ValueError) as caught:
        attention_paged(**arguments)
    assert str(caught.value).startswith(message), caught.value


@settings(max_examples=60)
@given(st.data())
def test_any_table_and_lengths_are_refused_or_right(data):
    """Arrays end at pages that may not be touched: a wrong address would end the process."""
    batch, pages, entries = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(0, 3))
    page = data.draw(st.sampled_from([16, 32]))
    heads_first, kind = data.draw(st.booleans()), data.draw(st.sampled_from([np.float32, np.int8]))
    integers = st.integers(0, pages - 1) if data.draw(st.booleans()) else st.integers(-2, pages)
    table = np.array(data.draw(st.lists(integers, min_size=batch * entries, max_size=batch * entries)), np.int32)
    table = guarded(table.reshape(batch, entries))
    bounds = st.integers(-1 if data.draw(st.booleans()) else 0, entries * page + data.draw(st.integers(0, 1)))
    lengths = guarded(np.array(data.draw(st.lists(bounds, min_size=batch, max_size=batch)), np.int32))
    rng = np.random.default_rng(0)
    shape = (pages, 2, page, 19) if heads_first else (pages, page, 2, 19)
    size = 9 if kind is np.int8 else 1
    k, v = (guarded((size * rng.standard_normal(shape)).astype(kind)) for _ in "kv")
    q = guarded(rng.standard_normal((batch, 4, 1, 19), dtype=np.float32))
    scales = {}
    if kind is np.int8:
        scales = {f"{x}_scale": guarded(np.full((pages, 2, page), 0.1, np.float32)) for x in "kv"}
    kv_layout = "bhtd" if heads_first else "bthd"
    reach = [table[b, : -(-lengths[b] // page)] for b in range(batch) if 0 <= lengths[b] <= entries * page]
    legal = len(reach) == batch and all(((used >= 0) & (used < pages)).all() for used in reach)
    try:
        out = attention_paged(q, k, v, table, lengths, kv_layout=kv_layout, **scales)
    except ValueError as error:
        assert not legal, error
        return
    assert legal
    tokens_first = [(x.swapaxes(1, 2) if heads_first else x) * np.float32(0.1 if scales else 1) for x in (k, v)]
    for b in range(batch):
        arrays = q[b : b + 1], *(in_one_piece(x, table[b], int(lengths[b]), page) for x in tokens_first)
        assert_as_good(out[b : b + 1], None, arrays)
