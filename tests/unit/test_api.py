import numpy as np
import pytest
from problems import AVAILABLE, assert_right, draw

import streaming_attention
from streaming_attention import attention

Q, K, V = draw(2, 4, 2, 5, 9, 16)


def strided(array):
    """The same values with every axis but the last out of order."""
    return np.ascontiguousarray(array.transpose(1, 2, 0, 3)).transpose(2, 0, 1, 3)


def every_second(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def unaligned(array):
    shifted = np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(array.dtype)
    return shifted.reshape(array.shape)


def reversed_tokens(array):
    return np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1]


def read_only(array):
    frozen = array.copy()
    frozen.flags.writeable = False
    return frozen


@pytest.mark.parametrize("view", [strided, every_second, unaligned, reversed_tokens, read_only, np.asfortranarray])
@pytest.mark.parametrize("method", AVAILABLE)
def test_any_strides(method, view):
    q, k, v = map(view, (Q, K, V))
    np.testing.assert_array_equal(q, Q)
    out = attention(q, k, v, causal=True, method=method, threads=2)
    assert_right(out, None, Q, K, V, causal=True)


@pytest.mark.parametrize("method", AVAILABLE)
def test_inputs_are_left_alone(method):
    q, k, v = Q.copy(), K.copy(), V.copy()
    out = attention(q, k, v, method=method)
    for before, after in ((Q, q), (K, k), (V, v)):
        np.testing.assert_array_equal(after, before)
        assert not np.shares_memory(out, after)


def test_two_calls_give_two_outputs():
    first = attention(Q, K, V)
    kept = first.copy()
    second = attention(Q, 2 * K, V)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


BAD = {
    "q: list": ({"q": [1.0]}, TypeError),
    "k: NoneType": ({"k": None}, TypeError),
    "q: dtype float64": ({"q": Q.astype(np.float64)}, ValueError),
    "v: dtype int32": ({"v": V.astype(np.int32)}, ValueError),
    "k: dtype >f4": ({"k": K.astype(">f4")}, ValueError),
    "q: shape (4, 5, 16)": ({"q": Q[0]}, ValueError),
    "v: shape (2, 2, 8, 16)": ({"v": V[:, :, :8]}, ValueError),
    "k: shape (1, 2, 9, 16)": ({"k": K[:1], "v": V[:1]}, ValueError),
    "k: shape (2, 2, 9, 8)": ({"k": K[..., :8], "v": V[..., :8]}, ValueError),
    "heads of q: 3 is not a multiple of the 2": ({"q": Q[:, :3]}, ValueError),
    "heads of q: 0": ({"q": Q[:, :0]}, ValueError),
    "heads of k: 0": ({"k": K[:, :0], "v": V[:, :0]}, ValueError),
    "head_dim: 0": ({"q": Q[..., :0], "k": K[..., :0], "v": V[..., :0]}, ValueError),
    "causal: 'yes'": ({"causal": "yes"}, TypeError),
    "scale: '1'": ({"scale": "1"}, TypeError),
    "scale: nan": ({"scale": float("nan")}, ValueError),
    "threads: 0 is not": ({"threads": 0}, ValueError),
    "threads: 1.5": ({"threads": 1.5}, TypeError),
    "threads: 100000": ({"threads": 100_000}, ValueError),
    "unknown method 'flash'": ({"method": "flash"}, ValueError),
    "option block: 3 ": ({"block": 3}, ValueError),
    "option blocks: streaming has no such option": ({"blocks": 3}, ValueError),
    "window: 3 is not a pair": ({"window": 3}, TypeError),
    "window: 1.5 of (1.5, 2) is not an integer": ({"window": (1.5, 2)}, TypeError),
    "window: -2 of (-2, 2)": ({"window": (-2, 2)}, ValueError),
    "softcap: 0 is not allowed": ({"softcap": 0}, ValueError),
    "softcap: 'x' is not a number": ({"softcap": "x"}, TypeError),
    "sinks: shape (3,), must be (4,)": ({"sinks": np.zeros(3, np.float32)}, ValueError),
    "sinks: dtype float64": ({"sinks": np.zeros(4)}, ValueError),
    "alibi_slopes: shape (1, 4)": ({"alibi_slopes": np.zeros((1, 4), np.float32)}, ValueError),
    "layout: 'btd'": ({"layout": "btd"}, ValueError),
    "out: list": ({"out": [0]}, TypeError),
    "out: shape (2, 4, 5, 15), must be q's": ({"out": np.empty((2, 4, 5, 15), np.float32)}, ValueError),
    "out: dtype float64": ({"out": np.empty(Q.shape)}, ValueError),
    "out: shares memory with q": ({"out": Q}, ValueError),
    "out: the array is read-only": ({"out": np.frombuffer(Q.tobytes(), np.float32).reshape(Q.shape)}, ValueError),
    "v: dtype float16 differs from k's float32": ({"v": V.astype(np.float16)}, ValueError),
    "window: given, but the method naive": ({"method": "naive", "window": (3, 3)}, ValueError),
    "alibi_slopes: given, but the method gemm": (
        {"method": "gemm", "alibi_slopes": np.zeros(4, np.float32)},
        ValueError,
    ),
    "q: dtype float16, but naive": (
        {"method": "naive", "q": Q.astype(np.float16), "k": K.astype(np.float16), "v": V.astype(np.float16)},
        ValueError,
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named_with_their_value(message):
    changed, kind = BAD[message]
    with pytest.raises(kind) as caught:
        attention(**{"q": Q, "k": K, "v": V, **changed})
    assert str(caught.value).startswith(message), caught.value


def test_dtype_message_says_what_is_allowed():
    with pytest.raises(ValueError, match="allowed: float32, float16, bfloat16"):
        attention(Q.astype(np.float64), K, V)


def test_missing_method_says_what_is_not_installed(monkeypatch):
    from dataclasses import replace

    from streaming_attention.registry import METHODS

    monkeypatch.setitem(METHODS, "naive", replace(METHODS["naive"], requires=("no_such_module",)))
    with pytest.raises(ValueError, match="no_such_module is not installed"):
        attention(Q, K, V, method="naive")


def test_public_names():
    assert streaming_attention.attention is attention
    assert callable(streaming_attention.merge)
    with pytest.raises(AttributeError, match="nothing"):
        streaming_attention.nothing  # noqa: B018
