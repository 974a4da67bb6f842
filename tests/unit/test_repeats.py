"""Calls like an earlier one give what the first one would, and fail as it would."""

from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

from streaming_attention import attention, repeats

SHAPES = {
    "decode": ((2, 4, 1, 64), (2, 2, 300, 64)),
    "decode by splits": ((1, 4, 1, 32), (1, 2, 2500, 32)),
    "prefill": ((2, 4, 70, 48), (2, 2, 90, 48)),
    "no keys": ((1, 2, 3, 32), (1, 2, 0, 32)),
    "no queries": ((1, 2, 0, 32), (1, 2, 5, 32)),
}
DTYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
OPTIONS = [
    {},
    {"causal": True, "return_lse": True},
    {"scale": 0.5, "threads": 2},
    {"softcap": 20.0, "layout": "bthd", "return_lse": True},
]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(repeats, "_known", {})


def draw(shapes, dtype=np.float32, layout="bhtd", seed=0):
    rng = np.random.default_rng(seed)
    q, k = shapes
    arrays = [rng.standard_normal(shape, dtype=np.float32).astype(dtype) for shape in (q, k, k)]
    return [x.swapaxes(1, 2) if layout == "bthd" else x for x in arrays]


def as_first(arrays, options):
    repeats._known.clear()
    return attention(*arrays, **options)


def assert_same(one, other):
    one, other = (x if isinstance(x, tuple) else (x,) for x in (one, other))
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides)
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_a_repeated_call_gives_the_bits_of_a_first_one(name, dtype, options):
    first, second = (draw(SHAPES[name], DTYPES[dtype], options.get("layout", "bhtd"), seed=seed) for seed in (0, 1))
    expected = as_first(second, options)
    kept = as_first(first, options)
    (repeat,) = repeats._known.values()
    assert_same(attention(*second, **options), expected)
    assert list(repeats._known.values()) == [repeat], "the second call made a form of its own"
    assert_same(kept, as_first(first, options))  # not written by the repeated call


def test_another_form_is_another_call():
    q, k, v = draw(SHAPES["decode"])
    wide = np.concatenate([k, k], axis=3)[..., ::2]
    calls = [
        ((q, k, v), {}),
        ((q, k, v), {"causal": True}),
        ((q, k, v), {"scale": 1}),
        ((q, k, v), {"scale": 1.0}),
        ((q, k, v), {"return_lse": True}),
        ((q, k, v), {"threads": 1}),
        ((q, k[:, :, :200], v[:, :, :200]), {}),
        ((q, wide, v), {}),
        ((q.astype(np.float16), k, v), {}),
        ((q, k.astype(np.float16), v.astype(np.float16)), {}),
    ]
    for arrays, options in calls:
        attention(*arrays, **options)
    assert len(repeats._known) == len(calls)
    for arrays, options in calls:
        repeated = attention(*arrays, **options)
        known = dict(repeats._known)
        assert_same(repeated, as_first(arrays, options))
        repeats._known.update(known)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"causal": 1}, "causal: 1 is not a bool"),
        ({"scale": True}, "scale: True is not a number"),
        ({"threads": 0}, "threads: 0 is not"),
        ({"threads": True}, "threads: True is not an integer"),
        ({"scale": [1.0]}, "scale"),
        ({"layout": "dthb"}, "layout"),
    ],
)
def test_what_is_refused_is_refused_after_a_call_that_looks_alike(options, words):
    arrays = draw(SHAPES["decode"])
    attention(*arrays, causal=True, scale=1.0, threads=1)
    with pytest.raises((TypeError, ValueError), match=words):
        attention(*arrays, **{"causal": True, "scale": 1.0, "threads": 1} | options)
    assert len(repeats._known) == 1


def test_arrays_that_are_not_aligned_are_copied_every_time():
    q, k, v = draw(SHAPES["decode"])
    memory = np.empty(k.nbytes + 1, np.uint8)
    askew = memory[1:].view(np.float32).reshape(k.shape)
    for factor in (1, 2):
        askew[...] = factor * k
        np.testing.assert_array_equal(attention(q, askew, v), as_first((q, factor * k, v), {}))
        repeats._known.clear()
    attention(q, askew, v)
    assert not repeats._known


def test_arguments_that_are_arrays_are_checked_every_time():
    q, k, v = draw(SHAPES["decode"])
    for given in ({"sinks": np.zeros(4, np.float32)}, {"alibi_slopes": np.zeros(4, np.float32)}, {"window": (3, 0)},
                  {"out": np.empty_like(q)}, {"method": "naive"}, {"block": 64}):  # fmt: skip
        attention(q, k, v, **given)
    assert not repeats._known


def test_repeated_calls_from_several_threads():
    inputs = [draw(SHAPES["decode by splits"], seed=seed) for seed in range(8)]
    expected = [as_first(arrays, {}) for arrays in inputs]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            for one, other in zip(threads.map(lambda arrays: attention(*arrays), inputs), expected, strict=True):
                assert_same(one, other)


def test_no_more_forms_are_kept_than_are_worth_it(monkeypatch):
    monkeypatch.setattr(repeats, "MOST", 3)
    for keys in range(1, 9):
        q, k, v = draw(((1, 1, 1, 32), (1, 1, keys, 32)))
        assert_same(attention(q, k, v), attention(q, k, v))
        assert 1 <= len(repeats._known) <= 3
