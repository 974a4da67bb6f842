"""The public backward function: what it refuses, and that it computes what the kernels do."""

import numpy as np
import pytest
from gradients import assert_gradients
from problems import draw

from streaming_attention import attention, attention_backward


@pytest.fixture
def call():
    """Keyword arguments of a call that works."""
    q, k, v = draw(1, 4, 2, 20, 30, 32)
    out, lse = attention(q, k, v, causal=True, return_lse=True)
    return {"dout": np.ones_like(q), "q": q, "k": k, "v": v, "out": out, "lse": lse, "causal": True}


def test_gradients_of_the_public_forward_pass(call):
    found = attention_backward(**call, threads=2)
    assert_gradients(found, call["dout"], call["q"], call["k"], call["v"], causal=True)


def test_tokens_before_heads(call):
    expected = attention_backward(**call)
    swapped = {name: x.swapaxes(1, 2) if getattr(x, "ndim", 0) == 4 else x for name, x in call.items()}
    for gradient, reference in zip(attention_backward(**swapped, layout="bthd"), expected, strict=True):
        np.testing.assert_array_equal(gradient.swapaxes(1, 2), reference)


def test_finite_differences(call):
    """A second witness, which knows nothing of the formulas: the loss along a random direction."""
    rng = np.random.default_rng(3)
    names = ("q", "k", "v")
    found = attention_backward(**call)
    for name, gradient in zip(names, found, strict=True):
        direction = rng.standard_normal(gradient.shape).astype(np.float32)
        moved = [
            attention(*(call[n] + step * direction if n == name else call[n] for n in names), causal=True)
            for step in (1e-2, -1e-2)
        ]
        slope = (moved[0] - moved[1]).sum(dtype=float) / 2e-2
        assert np.isclose((gradient * direction).sum(), slope, rtol=1e-2, atol=1e-2), name


def test_windows_are_given_as_in_the_forward_pass(call):
    for window, same in (((-1, 3), (None, 3)), ((-1, -1), None), ([5, 2], (5, 2))):
        for found, expected in zip(
            attention_backward(**call, window=window), attention_backward(**call, window=same), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": [1.0]}, TypeError, "q: list is not a numpy array"),
        ({"v": np.zeros((1, 2, 30, 32))}, ValueError, "v: dtype float64 is not supported; allowed: float32"),
        ({"out": np.zeros((1, 4, 20, 32), np.float16)}, ValueError, "out: dtype float16 differs from q's float32"),
        ({"dout": np.zeros((4, 20, 32), np.float32)}, ValueError, r"dout: shape \(4, 20, 32\)"),
        ({"dout": np.zeros((1, 4, 21, 32), np.float32)}, ValueError, "dout: .* differs from q's"),
        ({"v": np.zeros((1, 2, 31, 32), np.float32)}, ValueError, "v: .* differs from k's"),
        ({"lse": np.zeros((1, 4, 21), np.float32)}, ValueError, r"lse: .* must be \(1, 4, 20\)"),
        ({"lse": np.zeros((1, 4, 20))}, ValueError, "lse: dtype float64"),
        ({"causal": 1}, TypeError, "causal: 1"),
        ({"scale": float("nan")}, ValueError, "scale: nan"),
        ({"scale": "x"}, TypeError, "scale: 'x'"),
        ({"window": 5}, TypeError, "window: 5"),
        ({"window": (-2, 0)}, ValueError, r"window: -2 of \(-2, 0\)"),
        ({"layout": "thd"}, ValueError, "layout: 'thd' is not known; allowed: bhtd, bthd"),
        ({"threads": 0}, ValueError, "threads: 0"),
        ({"threads": True}, TypeError, "threads: True"),
    ],
)
def test_what_is_wrong_is_named(call, change, error, message):
    with pytest.raises(error, match=message):
        attention_backward(**{**call, **change})


def test_heads_that_do_not_share_out(call):
    wide = {name: np.repeat(call[name], 3, axis=1)[:, :3] for name in ("k", "v")}
    with pytest.raises(ValueError, match="heads of q: 4 is not a multiple of the 3 heads of k"):
        attention_backward(**{**call, **wide})
