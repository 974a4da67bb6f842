"""Values and masks at the edge: rows that see nothing, huge logits, infinities, NaN."""

import numpy as np
import pytest
from problems import AVAILABLE, draw, rounding

from streaming_attention import attention
from streaming_attention.oracle import oracle

OURS = [name for name in AVAILABLE if name != "torch_sdpa"]
MULTIPLIED = ("gemm", "triton_streaming", "triton_decode")  # by 0 is what isn't seen: in a BLAS, in tl.dot
MASKS_EXACTLY = [name for name in OURS if name not in MULTIPLIED]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", OURS)
def test_row_that_sees_no_key_is_zero(method, threads):
    q, k, v = draw(1, 2, 1, 12, 5, 16)
    out, lse = attention(q, k, v, causal=True, method=method, threads=threads, return_lse=True)
    assert not out[:, :, :7].any()
    assert np.isneginf(lse[:, :, :7]).all()
    assert np.isfinite(lse[:, :, 7:]).all()
    assert out[:, :, 7:].any(axis=-1).all()


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("keys", [40, 2100])
def test_logits_of_ten_thousand(method, keys):
    q, k, v = draw(1, 2, 2, 30, keys, 64)
    q *= 1e4 / np.abs(np.einsum("bhqd,bhkd->bhqk", q, k) * 64**-0.5).max()
    out, lse = attention(q, k, v, method=method, return_lse=True)
    reference, reference_lse = oracle(q, k, v)
    assert np.abs(out - reference).max() <= rounding(q, k, v)
    np.testing.assert_allclose(lse, reference_lse, rtol=1e-6)


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("keys", [300, 2500])
def test_later_keys_that_dwarf_the_earlier(method, keys):
    """Every block raises the peak: a missing rescale of what was summed before would show."""
    q, k, v = draw(1, 1, 1, 3, keys, 32)
    k[:] = np.abs(k) * np.linspace(0.1, 8, keys, dtype=np.float32)[:, None]
    q[:] = np.abs(q)
    out = attention(q, k, v, method=method)
    assert np.abs(out - oracle(q, k, v)[0]).max() <= rounding(q, k, v)


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("place", ["k", "v"])
def test_nan_in_a_key_reaches_every_row_without_a_mask(method, place):
    q, k, v = draw(1, 1, 1, 10, 300, 16)
    {"k": k, "v": v}[place][0, 0, 200, 3] = np.nan
    out = attention(q, k, v, method=method)
    assert np.isnan(out[..., 3]).all()


@pytest.mark.parametrize("place", ["k", "v"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", MASKS_EXACTLY)
def test_what_a_row_does_not_see_does_not_reach_it(method, place, value):
    q, k, v = draw(1, 2, 1, 200, 200, 16)
    clean = attention(q, k, v, causal=True, method=method)
    {"k": k, "v": v}[place][0, 0, 150] = value
    dirty = attention(q, k, v, causal=True, method=method)
    np.testing.assert_array_equal(dirty[:, :, :150], clean[:, :, :150])
    assert not np.isfinite(dirty[:, :, 150:]).all()
    if np.isnan(value):
        assert np.isnan(dirty[:, :, 150:]).all()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", OURS)
def test_nan_in_a_query_stays_in_its_row(method, threads):
    q, k, v = draw(1, 1, 1, 30, 70, 16)
    q[0, 0, 20, 5] = np.nan
    out, lse = attention(q, k, v, method=method, threads=threads, return_lse=True)
    rows = np.isnan(out).any(axis=-1)[0, 0]
    assert rows.tolist() == [row == 20 for row in range(30)]
    assert np.isnan(out[0, 0, 20]).all()
    assert np.isnan(lse[0, 0, 20])


@pytest.mark.parametrize("method", OURS)
def test_logits_of_minus_infinity(method):
    """Keys with logit -inf weigh nothing, in a first block full of them too; a row of them alone is a row without."""
    q, k, v = draw(1, 1, 1, 2, 400, 16)
    q[:] = np.abs(q)
    k[0, 0, :300, 0] = -np.inf
    out = attention(q, k, v, method=method)
    np.testing.assert_allclose(out, oracle(q, k[:, :, 300:], v[:, :, 300:])[0], atol=1e-5)
    k[..., 0] = -np.inf
    out, lse = attention(q, k, v, method=method, return_lse=True)
    assert not out.any()
    assert np.isneginf(lse).all()


@pytest.mark.parametrize("method", OURS)
def test_equal_logits_average_the_values(method):
    q, k, v = draw(1, 1, 1, 4, 777, 16)
    q[:] = 0
    out, lse = attention(q, k, v, method=method, return_lse=True)
    np.testing.assert_allclose(out, np.broadcast_to(v.mean(axis=2, keepdims=True), out.shape), atol=1e-6)
    np.testing.assert_allclose(lse, np.log(777), rtol=1e-6)
