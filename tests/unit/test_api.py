import numpy as np
import pytest
from guarded import guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import AVAILABLE, assert_right, draw
from textbook import assert_as_good

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


QUERIES = [1, 40]


@pytest.mark.parametrize("queries", QUERIES)
def test_options_reach_the_kernel(queries):
    arrays = draw(1, 4, 2, queries, 90, 32)
    sinks, slopes = np.array([1, -3, 2, 0], np.float32), np.array([0.5, 0.25, 1.0, 0.0], np.float32)
    common = {"softcap": 3.0, "sinks": sinks, "scale": 0.4, "causal": True}
    out, lse = attention(*arrays, window=(30, -1), alibi_slopes=slopes, return_lse=True, **common)
    assert_as_good(out, lse, arrays, window=(30, None), slopes=slopes, **common)


@pytest.mark.parametrize("queries", QUERIES)
def test_half_precision_in_and_out(queries):
    arrays = [x.astype(np.float16) for x in draw(1, 4, 2, queries, 90, 32)]
    out = attention(*arrays)
    assert out.dtype == np.float16
    wide = attention(*arrays, out=np.empty(out.shape, np.float32))
    np.testing.assert_array_equal(out, wide.astype(np.float16))
    assert_as_good(out, None, arrays, "fp16")


@pytest.mark.parametrize("queries", QUERIES)
def test_bfloat16_in_and_out(queries):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    arrays = [x.astype(bfloat16) for x in draw(1, 4, 2, queries, 90, 32)]
    out = attention(*arrays)
    assert out.dtype == bfloat16
    assert_as_good(out.view(np.uint16), None, [x.view(np.uint16) for x in arrays], "bf16")


@pytest.mark.parametrize("method", [None, "gemm"])
@pytest.mark.parametrize("queries", [1, 40])
def test_tokens_first(method, queries):
    q, k, v = draw(2, 4, 2, queries, 50, 32)
    expected, expected_lse = attention(q, k, v, causal=True, method=method, return_lse=True)
    swapped = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v))
    out, lse = attention(*swapped, causal=True, layout="bthd", method=method, return_lse=True)
    np.testing.assert_array_equal(out.swapaxes(1, 2), expected)
    np.testing.assert_array_equal(lse, expected_lse)


@pytest.mark.parametrize("method", [None, "gemm"])
def test_output_of_the_caller(method):
    expected = attention(Q, K, V, method=method)
    wide = np.full((*Q.shape, 2), 7, np.float32)
    found = attention(Q, K, V, out=wide[..., 0], method=method)
    assert np.shares_memory(found, wide)
    np.testing.assert_array_equal(wide[..., 0], expected)
    assert (wide[..., 1] == 7).all()


def test_output_with_elements_in_one_place_is_refused():
    row = np.lib.stride_tricks.as_strided(np.empty(16, np.float32), Q.shape, (0, 0, 0, 4))
    with pytest.raises(ValueError, match=r"out: strides .* put several elements in one place"):
        attention(Q, K, V, out=row)


@settings(max_examples=40)
@given(st.data())
def test_nothing_outside_the_arrays_is_touched(data):
    shape = data.draw(
        st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(0, 40), st.integers(0, 80))
    )
    batch, group, kv_heads, queries, keys = shape
    arrays = draw(batch, group * kv_heads, kv_heads, queries, keys, data.draw(st.integers(1, 40)))
    at_end, causal = data.draw(st.booleans()), data.draw(st.booleans())
    flips = [data.draw(st.sampled_from([1, -1])) for _ in range(4)]
    expected = attention(*arrays, causal=causal)
    steps = tuple(slice(None, None, step) for step in flips)
    walled = [guarded(x[steps], at_end)[steps] for x in (*arrays, expected)]
    walled[3][...] = 7
    found = attention(*walled[:3], causal=causal, out=walled[3])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
