"""Shipped kernels on arrays: prefill, decode, paged, ragged, backward; against float64."""

import subprocess
import sys

import numpy as np
import pytest

from streaming_attention.triton import attention as api
from streaming_attention.triton import decoding


def reference(q, k, v, causal):
    """Attention and lse in float64 by definition."""
    group = q.shape[1] // k.shape[1]
    q, k, v = q.astype(float), k.astype(float).repeat(group, 1), v.astype(float).repeat(group, 1)
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        reach = k.shape[2] - q.shape[2]
        scores = np.where(np.arange(k.shape[2]) <= np.arange(q.shape[2])[:, None] + reach, scores, -np.inf)
    peak = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isinf(peak), 0, peak))
    total = weights.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        lse = np.where(total > 0, peak + np.log(total), -np.inf)[..., 0]
    return weights @ v / np.where(total > 0, total, 1), lse


def draw(batch, heads, kv_heads, queries, keys, head_dim, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((batch, heads, queries, head_dim), *[(batch, kv_heads, keys, head_dim)] * 2)
    return [rng.standard_normal(shape, dtype=np.float32).astype(dtype) for shape in shapes]


def check(out, lse, q, k, v, causal, tolerance=3e-6):
    expected, expected_lse = reference(q, k, v, causal)
    np.testing.assert_allclose(out, expected, atol=tolerance)
    np.testing.assert_allclose(lse, expected_lse, atol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (4, 2), (5, 1)])
@pytest.mark.parametrize(
    "queries, keys, head_dim",
    [(129, 129, 64), (127, 300, 80), (130, 65, 128), (7, 64, 59), (1, 1, 96), (200, 191, 111), (40, 0, 64)],
)
def test_prefill(heads, kv_heads, queries, keys, head_dim, causal):
    q, k, v = draw(2, heads, kv_heads, queries, keys, head_dim)
    check(*api.attention(q, k, v, causal=causal, return_lse=True), q, k, v, causal)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_prefill_in_half_precision(dtype, tolerance):
    q, k, v = draw(1, 2, 1, 150, 150, 64)
    if dtype == "bfloat16":
        bits = [(x.view(np.uint32) >> 16).astype(np.uint16) for x in (q, k, v)]
        out = api.attention(*bits, causal=True)
        out, q, k, v = ((x.astype(np.uint32) << 16).view(np.float32) for x in (out, *bits))
    else:
        q, k, v = (x.astype(dtype) for x in (q, k, v))
        out = api.attention(q, k, v, causal=True)
    np.testing.assert_allclose(out, reference(q, k, v, True)[0], atol=tolerance)


@pytest.mark.parametrize("group, queries", [(1, 1), (3, 1), (8, 1), (2, 4), (27, 1)])
@pytest.mark.parametrize("keys", [1, 1023, 1025, 2500])
@pytest.mark.parametrize("head_dim", [64, 80])
def test_decode(group, queries, keys, head_dim):
    q, k, v = draw(2, 2 * group, 2, queries, keys, head_dim)
    check(*decoding.decode(q, k, v, causal=True, return_lse=True), q, k, v, True)


@pytest.mark.parametrize("page, head_dim", [(16, 64), (64, 64), (256, 64), (48, 80)])
def test_paged_decode_is_decode(page, head_dim):
    rng = np.random.default_rng(1)
    lengths = np.array([1, 600, 255])
    pages = rng.permutation(20 * (1024 // page)).astype(np.int32)
    table = pages[: 3 * -(-600 // page)].reshape(3, -1)
    k_pages, v_pages = rng.standard_normal((2, pages.size, 2, page, head_dim), dtype=np.float32)
    q = rng.standard_normal((3, 4, 1, head_dim), dtype=np.float32)
    for sequence, length in enumerate(lengths):  # what lies behind a sequence's end may be anything
        if length % page:
            k_pages[table[sequence, length // page], :, length % page :] = np.nan
            v_pages[table[sequence, length // page], :, length % page :] = np.nan
    out, lse = decoding.decode_paged(q, k_pages, v_pages, table, lengths, return_lse=True)
    for b, length in enumerate(lengths):
        k, v = (part[table[b]].swapaxes(0, 1).reshape(1, 2, -1, head_dim)[:, :, :length] for part in (k_pages, v_pages))
        check(out[b : b + 1], lse[b : b + 1], q[b : b + 1], k, v, True)


def test_ragged_sequences():
    starts_q, starts_k = np.array([0, 5, 5, 200, 330]), np.array([0, 9, 20, 215, 400])
    rng = np.random.default_rng(2)
    q = rng.standard_normal((330, 4, 64), dtype=np.float32)
    k, v = rng.standard_normal((2, 400, 2, 64), dtype=np.float32)
    out = api.attention_varlen(q, k, v, starts_q, starts_k, causal=True)
    for i in range(4):
        rows, columns = slice(*starts_q[i : i + 2]), slice(*starts_k[i : i + 2])
        if rows.start < rows.stop:
            parts = [x[where].swapaxes(0, 1)[None] for x, where in ((q, rows), (k, columns), (v, columns))]
            np.testing.assert_allclose(out[rows].swapaxes(0, 1)[None], reference(*parts, True)[0], atol=3e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_backward_is_the_derivative(causal):
    q, k, v = draw(1, 4, 2, 70, 90, 40)
    grad = np.random.default_rng(3).standard_normal(q.shape, dtype=np.float32)
    out, lse = api.attention(q, k, v, causal=causal, return_lse=True)
    grads = api.attention_backward(grad, q, k, v, out, lse, causal=causal)
    rng = np.random.default_rng(4)
    for place, tensor in enumerate((q, k, v)):
        step = rng.standard_normal(tensor.shape) * 1e-4
        shifted = [
            [x.astype(float) + (sign * step if i == place else 0) for i, x in enumerate((q, k, v))] for sign in (1, -1)
        ]
        values = [(reference(*tensors, causal)[0] * grad).sum() for tensors in shifted]
        np.testing.assert_allclose((grads[place] * step).sum(), (values[0] - values[1]) / 2, rtol=2e-4, atol=1e-6)


def test_same_bits_on_any_number_of_threads():
    q, k, v = draw(1, 4, 2, 300, 300, 64)
    results = []
    for threads in (1, 2, 5):
        decoded = decoding.decode(q[:, :, :2], k, v, threads=threads)
        results.append((api.attention(q, k, v, causal=True, threads=threads), decoded))
    for out, decoded in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(decoded, results[0][1])


def test_strided_tensors():
    tokens_first = [x.swapaxes(1, 2).copy().swapaxes(1, 2) for x in draw(2, 4, 2, 100, 100, 64)]
    q, k, v = tokens_first
    check(*api.attention(q, k, v, return_lse=True), q, k, v, False)


def test_logits_of_ten_thousand():
    q, k, v = draw(1, 1, 1, 64, 200, 64)
    out, lse = api.attention(q * 1e3, k * 10, v, return_lse=True)
    expected, expected_lse = reference(q * 1e3, k * 10, v, False)
    np.testing.assert_allclose(out, expected, atol=3e-2)
    np.testing.assert_allclose(lse, expected_lse, rtol=1e-5)


@pytest.mark.parametrize("change, message", [
    (lambda q, k, v: (q, k[..., :32], v), "k, v"),
    (lambda q, k, v: (q.astype(np.float64), k, v), "q: element type float64"),
    (lambda q, k, v: (q[0], k, v), "q: 3 axes"), (lambda q, k, v: (q[:, :3], k, v), "3 heads"),
    (lambda q, k, v: (q[..., ::2], k[..., ::2], v[..., ::2]), "q: its last axis"),
    (lambda q, k, v: (q, k.astype(np.float16), v), "k: fp16"),
])  # fmt: skip
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        api.attention(*change(*draw(1, 4, 2, 8, 8, 64)))


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x).to(torch.bfloat16) for x in draw(1, 2, 2, 70, 70, 64))
    out = api.attention(q, k, v, causal=True)
    assert out.dtype == torch.bfloat16
    expected = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    assert (out.double() - expected).abs().max() < 2e-2


def test_runs_without_triton_and_torch():
    program = """
import sys
for name in ("triton", "torch"):
    sys.modules[name] = None
import numpy as np
from streaming_attention.triton.attention import attention
q = np.ones((1, 1, 3, 64), np.float32)
assert np.allclose(attention(q, q, q), 1)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
