"""The decode kernel against the oracle: groups, storage formats, pages."""

import numpy as np
import pytest
from problems import assert_right, draw

from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming.decode import SPLIT
from streaming_attention.streaming.front import run_decode


def decode(q, k, v, isa=None, **options):
    """Output and log-sum-exp, from arrays filled with a value that must not survive."""
    out, lse = np.full(q.shape, 7, np.float32), np.full(q.shape[:3], 7, np.float32)
    run_decode(q, k, v, out, lse, isa=isa or select_isa(), **options)
    return out, lse


def assert_same(one, other):
    """The same bits, output and log-sum-exp."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def in_pages(array, page, rng):
    """A paged copy of (batch, kv_heads, keys, head_dim), the tail of the last page NaN, and its block table."""
    batch, kv_heads, keys, head_dim = array.shape
    count = -(-keys // page)
    table = rng.permutation(batch * count).astype(np.int32).reshape(batch, count)
    pages = np.full((batch * count, page, kv_heads, head_dim), np.nan, array.dtype)
    for b in range(batch):
        for n in range(count):
            part = array[b, :, n * page : (n + 1) * page].swapaxes(0, 1)
            pages[table[b, n], : len(part)] = part
    return pages, table


@pytest.mark.parametrize("head_dim", [3, 59, 64, 96, 111, 128])
@pytest.mark.parametrize("keys", [1, 63, 64, 65, SPLIT - 1, SPLIT + 1])
def test_lengths_around_panels_and_splits(head_dim, keys):
    q, k, v = draw(heads=2, kv_heads=1, queries=1, keys=keys, head_dim=head_dim)
    assert_right(*decode(q, k, v), q, k, v)


@pytest.mark.parametrize("group", [1, 3, 5, 7, 27])
def test_any_group(isa, group):
    q, k, v = draw(2, 2 * group, 2, 1, 150, 64)
    assert_right(*decode(q, k, v, isa), q, k, v)


@pytest.mark.parametrize("head_dim", [80, 192, 256])
@pytest.mark.parametrize("group", [1, 2, 7])
def test_tiles_of_every_size_in_several_chunks(isa, group, head_dim):
    q, k, v = draw(1, group, 1, 1, 1061, head_dim)
    assert_right(*decode(q, k, v, isa), q, k, v)


@pytest.mark.parametrize("head_dim", [59, 128])
def test_several_queries_are_causal(isa, head_dim):
    q, k, v = draw(1, 4, 2, 5, 1100, head_dim)
    assert_right(*decode(q, k, v, isa, causal=True), q, k, v, causal=True)


def test_no_key_at_all(isa):
    q, k, v = draw(queries=1, keys=0)
    out, lse = decode(q, k, v, isa)
    assert (out == 0).all() and (lse == -np.inf).all()


@pytest.mark.parametrize("threads", [2, 5])
def test_bits_do_not_depend_on_threads(threads):
    q, k, v = draw(1, 6, 2, 1, 5 * SPLIT + 3, 64)
    assert_same(decode(q, k, v), decode(q, k, v, threads=threads))


@pytest.mark.parametrize("page", [16, 64, 256])
@pytest.mark.parametrize("head_dim", [59, 64])
def test_pages_give_the_same_bits(isa, rng, page, head_dim):
    q, k, v = draw(2, 4, 2, 1, 1090, head_dim)
    (k_pages, table), (v_pages, _) = (in_pages(x, page, np.random.default_rng(1)) for x in (k, v))
    lengths = np.full(2, 1090, np.int32)
    paged = decode(q, k_pages, v_pages, isa, block_table=table, seqlens=lengths)
    assert_same(paged, decode(q, k, v, isa))


def test_each_sequence_has_its_own_length(rng):
    q, k, v = draw(3, 2, 1, 1, 200, 32)
    out, _ = decode(q, k, v, seqlens=np.array([200, 1, 77], np.int32))
    for b, keys in enumerate([200, 1, 77]):
        alone, _ = decode(q[b : b + 1], k[b : b + 1, :, :keys], v[b : b + 1, :, :keys])
        np.testing.assert_array_equal(out[b], alone[0])


def test_pages_of_other_sizes_are_refused(rng):
    q, k, _ = draw(1, 1, 1, 1, 40, 32)
    pages, table = in_pages(k, 20, rng)
    with pytest.raises(ValueError, match="pages hold 20 keys; allowed: multiples of 16"):
        decode(q, pages, pages, block_table=table)


@pytest.mark.parametrize("head_dim", [59, 128])
def test_half_precision_storage(isa, head_dim):
    q, k, v = draw(1, 4, 2, 1, 1100, head_dim)
    halves = k.astype(np.float16), v.astype(np.float16)
    assert_right(*decode(q, *halves, isa), q, *(x.astype(np.float32) for x in halves))
    bits = [(x.view(np.uint32) >> 16).astype(np.uint16) for x in (k, v)]
    assert_right(*decode(q, *bits, isa), q, *((x.astype(np.uint32) << 16).view(np.float32) for x in bits))


@pytest.mark.parametrize("head_dim", [59, 128])
@pytest.mark.parametrize("keys", [5, 1100])
def test_int8_storage_has_a_scale_per_token_and_head(isa, rng, keys, head_dim):
    q, k, v = draw(1, 4, 2, 1, keys, head_dim)
    scales = [np.abs(x).max(-1) / 127 for x in (k, v)]
    codes = [np.round(x / scale[..., None]).astype(np.int8) for x, scale in zip((k, v), scales, strict=True)]
    meant = [(code * scale[..., None]).astype(np.float32) for code, scale in zip(codes, scales, strict=True)]
    out, lse = decode(q, *codes, isa, k_scale=scales[0], v_scale=scales[1])
    assert_right(out, lse, q, *meant)


def test_nan_in_a_key_reaches_the_output(isa):
    q, k, v = draw(1, 2, 1, 1, 100, 64)
    k[0, 0, 50, 7] = np.nan
    assert np.isnan(decode(q, k, v, isa)[0]).all()
