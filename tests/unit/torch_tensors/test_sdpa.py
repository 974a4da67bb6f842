"""torch's scaled_dot_product_attention and ours on the same tensors: values, gradients, meaning, refusals."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")

from streaming_attention.torch import scaled_dot_product_attention  # noqa: E402
from streaming_attention.torch.views import as_array  # noqa: E402

EXACT = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""What a result in this precision may differ by from float64's, for values of order 1."""


def tensors(batch=1, heads=2, kv_heads=2, queries=50, keys=50, head_dim=32, dtype=torch.float32):
    torch.manual_seed(5)
    shapes = (heads, queries), (kv_heads, keys), (kv_heads, keys)
    made = [torch.randn(batch, *shape, head_dim, dtype=torch.float64).to(dtype) for shape in shapes]
    return [tensor.requires_grad_() for tensor in made]


def with_gradients(attention, q, k, v, dtype=None, **options):
    """Output and the gradients of a fixed random weighing of it."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in (q, k, v)]
    out = attention(*inputs, **options)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out.backward(weights.to(q.dtype).to(out.dtype))
    return [out.detach(), *(x.grad for x in inputs)]


def assert_parity(q, k, v, **options):
    """Ours as near to torch in float64 as the precision allows."""
    found = with_gradients(scaled_dot_product_attention, q, k, v, **options)
    exact = with_gradients(torch.nn.functional.scaled_dot_product_attention, q, k, v, torch.float64, **options)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == q.dtype
        scale = max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=EXACT[q.dtype] * scale)


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(50, 50), (3, 50), (50, 20), (1, 1), (1, 700)])
def test_values_and_gradients(queries, keys, is_causal, dtype):
    """is_causal is aligned at the top left, also with more or fewer queries than keys."""
    q, k, v = tensors(queries=queries, keys=keys, dtype=dtype)
    assert_parity(q, k, v, is_causal=is_causal)


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_query_heads_share_key_heads(dtype):
    q, k, v = tensors(2, 6, 2, dtype=dtype)
    assert_parity(q, k, v, enable_gqa=True, is_causal=True, scale=0.3)


def test_gradients_against_finite_differences():
    """A witness beside torch: the loss along random directions."""
    q, k, v = (x.detach() for x in tensors(1, 2, 1, 20, 30, 16))
    gradients = with_gradients(scaled_dot_product_attention, q, k, v, enable_gqa=True)[1:]
    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for place, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, dtype=torch.float64)
        losses = []
        for step in (1e-2, -1e-2):
            moved = [x + (step * direction).float() if i == place else x for i, x in enumerate((q, k, v))]
            losses.append((scaled_dot_product_attention(*moved, enable_gqa=True) * weights).sum())
        slope = (losses[0] - losses[1]) / 2e-2
        assert torch.isclose((gradient * direction).sum(), slope, rtol=2e-2, atol=2e-2)


def test_three_axes():
    q, k, v = (x.detach()[0].requires_grad_() for x in tensors())
    assert_parity(q, k, v, is_causal=True)


def band(queries, keys, offset, left=None):
    distance = torch.arange(keys) - torch.arange(queries)[:, None] - offset
    return (distance <= 0) if left is None else (distance <= 0) & (distance >= -left)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(40, 60, dtype=torch.bool),
        band(40, 60, 20),
        band(40, 60, 0),
        band(40, 60, 20, left=7),
        torch.stack([band(40, 60, 20), band(40, 60, 20) & (torch.arange(60) >= 33)])[:, None],
        (torch.arange(60) < torch.tensor([[[[45]]], [[[1]]]])).expand(2, 1, 40, 60),
    ],
    ids=["all", "bottom right", "top left", "sliding window", "left padding", "right padding"],
)
def test_masks_that_are_bands(mask):
    q, k, v = tensors(2, 2, 2, 40, 60)
    assert_parity(q, k, v, attn_mask=mask)


def test_rows_that_see_nothing_are_0():
    q, k, v = tensors(queries=5, keys=5)
    out = scaled_dot_product_attention(q, k, v, attn_mask=torch.zeros(5, 5, dtype=torch.bool))
    out.sum().backward()
    assert (out == 0).all()
    assert all((x.grad == 0).all() for x in (q, k, v))


def test_no_tensor_is_copied():
    q, k, v = (x.detach().transpose(1, 2) for x in tensors())
    assert all(as_array(x).__array_interface__["data"][0] == x.data_ptr() for x in (q, k, v))
    half = torch.randn(2, 3).bfloat16()
    assert as_array(half).dtype == np.uint16
    assert as_array(half).__array_interface__["data"][0] == half.data_ptr()


def test_heads_of_the_output_are_side_by_side():
    """As models want them: their next step merges heads, here without a copy."""
    q, k, v = tensors()
    assert scaled_dot_product_attention(q, k, v).transpose(1, 2).is_contiguous()


def test_no_second_derivative():
    q, k, v = tensors(queries=3, keys=3)
    (gradient,) = torch.autograd.grad(scaled_dot_product_attention(q, k, v).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": np.zeros((1, 2, 50, 32))}, (TypeError, AttributeError), "ndarray|query"),
        ({"key": torch.zeros(1, 2, 50, 32, dtype=torch.float64)}, ValueError, "key: dtype torch.float64"),
        ({"value": torch.zeros(1, 2, 50, 32, device="meta")}, ValueError, "value: .* on meta; allowed: dense"),
        ({"value": torch.zeros(1, 2, 49, 32)}, ValueError, r"value: shape \(1, 2, 49, 32\) differs"),
        ({"query": torch.zeros(2, 2, 50, 32)}, ValueError, "key: .* doesn't fit query's"),
        ({"query": torch.zeros(1, 4, 50, 32)}, ValueError, "key: 2 heads for 4 of query; allowed with enable_gqa"),
        ({"query": torch.zeros(1, 3, 50, 32), "enable_gqa": True}, ValueError, "query: 3 heads are not a multiple"),
        ({"dropout_p": 0.1}, ValueError, "dropout_p: 0.1 is not supported; allowed: 0"),
        ({"attn_mask": torch.zeros(50, 50)}, TypeError, "attn_mask: torch.float32 is not supported"),
        ({"attn_mask": torch.ones(50, 49, dtype=torch.bool)}, ValueError, "attn_mask: its shape can't be spread"),
        ({"attn_mask": torch.eye(50).bool().flip(0)}, ValueError, "attn_mask: entry 0 is not a band"),
        (
            {"attn_mask": torch.stack([band(50, 50, 0), band(50, 50, 1)])[None]},
            ValueError,
            "attn_mask: differs among heads",
        ),
        ({"attn_mask": band(50, 50, 0), "is_causal": True}, ValueError, "is_causal: True beside an attn_mask"),
    ],
)
def test_what_is_refused(change, error, message):
    arguments = dict(zip(("query", "key", "value"), tensors(), strict=True))
    with pytest.raises(error, match=message):
        scaled_dot_product_attention(**{**arguments, **change})
