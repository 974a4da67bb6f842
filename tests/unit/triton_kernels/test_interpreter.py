"""Against Triton's interpreter: the package's own kernels, and kernels that nobody wrote."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")
SHAPES = {
    "one head": ((1, 1, 20, 32), (1, 1, 20, 32)),
    "grouped heads": ((2, 4, 33, 24), (2, 2, 50, 24)),
    "two blocks of queries": ((1, 1, 150, 64), (1, 1, 140, 64)),
}
FEW = {
    "one query": ((2, 4, 1, 32), (2, 2, 700, 32)),
    "two queries": ((1, 4, 2, 40), (1, 1, 300, 40)),
}
TOLERANCE = {"float32": 2e-6, "float16": 2e-3}


def draw(dtype, *shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32).astype(dtype) for shape in shapes]


def compare(interpret, module, function, arguments, options, dtype):
    """The same call natively and interpreted."""
    import importlib

    native = getattr(importlib.import_module(f"streaming_attention.triton.{module}"), function)(*arguments, **options)
    expected = interpret("call", module, function, arguments, options)
    both = zip(native, expected, strict=True) if isinstance(native, tuple) else [(native, expected)]
    for got, wanted in both:
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_prefill(interpret, name, causal, dtype):
    q, k = SHAPES[name]
    options = {"causal": causal, "return_lse": True}
    compare(interpret, "attention", "attention", draw(dtype, q, k, k), options, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_ragged_sequences(interpret, dtype):
    starts_q, starts_k = np.array([0, 5, 5, 60], np.int32), np.array([0, 9, 20, 70], np.int32)
    arguments = [*draw(dtype, (60, 4, 32), (70, 2, 32), (70, 2, 32)), starts_q, starts_k]
    compare(interpret, "attention", "attention_varlen", arguments, {"causal": True, "return_lse": True}, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", FEW)
def test_decode(interpret, name, dtype):
    q, k = FEW[name]
    compare(interpret, "decoding", "decode", draw(dtype, q, k, k), {"return_lse": True}, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_paged_decode(interpret, dtype):
    lengths, pages = np.array([1, 40, 25], np.int32), np.random.default_rng(1).permutation(9).astype(np.int32)
    arguments = [*draw(dtype, (3, 4, 1, 32), (9, 2, 16, 32), (9, 2, 16, 32)), pages.reshape(3, 3), lengths]
    compare(interpret, "decoding", "decode_paged", arguments, {"return_lse": True}, dtype)


def test_backward(interpret):
    from streaming_attention.triton.attention import attention

    q, k, v, grad = draw("float32", (1, 2, 30, 32), (1, 1, 40, 32), (1, 1, 40, 32), (1, 2, 30, 32))
    out, lse = attention(q, k, v, causal=True, return_lse=True)
    arguments = [grad, q, k, v, out, lse]
    compare(interpret, "attention", "attention_backward", arguments, {"causal": True}, "float32")


N = 32
INTEGERS = (
    "{0} + {1}", "{0} - {1} * 3", "{0} * {1}", "{0} & {1}", "{0} | {1}", "{0} ^ {1}", "~{0}", "{0} << 3", "{0} >> 2",
    "{0} // (tl.abs({1}) + 1)", "{0} % (tl.abs({1}) + 1)", "tl.maximum({0}, {1})", "tl.minimum({0}, {1})",
    "tl.where({0} > {1}, {0}, -{1})", "tl.cumsum({0}, 0)", "tl.sum({0}, 0) + {1} * 0", "tl.max({0}, 0) - {1}",
    "tl.argmax({0}, 0) + {1}", "tl.sort({0})", "tl.flip({0}, 0)", "tl.gather({0}, {1} & (N - 1), 0)",
    "tl.reshape(tl.trans(tl.reshape({0}, [4, N // 4])), [N])", "tl.xor_sum({0}, 0) | {1}",
    "{0}.to(tl.int8).to(tl.int32)", "{0}.to(tl.int64).to(tl.int32)", "tl.load(a + ({0} & (N - 1)))",
    "tl.load(b + place, mask={0} > {1}, other=7)", "({0} & 1023).to(tl.float32).to(tl.int32)",
    "tl.histogram({0} & 31, N)", "tl.sum(tl.reshape({0}, [N // 4, 4]), 1)[:, None].broadcast_to(N // 4, 4).reshape(N)",
)  # fmt: skip
FLOATS = (
    "{f} + {g}", "{f} * {g}", "{f} - {g}", "tl.maximum({f}, {g})", "tl.abs({f})",
    "tl.where({f} > {g}, {f} - {g}, ({g} - {f}) * 0.5)",
    "tl.exp2(-tl.abs({f}))", "tl.sqrt(tl.abs({f}))", "tl.sum({f}, 0) * 0.1 + {g}", "({0} & 15).to(tl.float32)",
    "{f}.to(tl.float16).to(tl.float32)", "tl.flip({f}, 0)", "tl.cumsum({f}, 0) * 0.1", "tl.fma({f}, {g}, {f})",
    "tl.clamp({f}, -1.0, 1.0)", "tl.max({f}, 0) - {g}", "tl.sigmoid({f})", "{f} / (tl.abs({g}) + 1.0)",
)  # fmt: skip


@st.composite
def programs(draw):
    """Statements that assign to integers ``i0, i1`` and floats ``f0, f1`` what they make of each other."""
    lines = []
    for _ in range(draw(st.integers(1, 6))):
        is_float = draw(st.booleans())
        text = draw(st.sampled_from(FLOATS if is_float else INTEGERS))
        names = {"f": draw(st.sampled_from(["f0", "f1"])), "g": draw(st.sampled_from(["f0", "f1"]))}
        places = [draw(st.sampled_from(["i0", "i1"])) for _ in range(2)]
        target = draw(st.sampled_from(["f0", "f1"] if is_float else ["i0", "i1"]))
        lines.append(f"{target} = {text.format(*places, **names)}")
    return lines


COUNTER = itertools.count()
HEADER = "import triton\nimport triton.language as tl\n"


@settings(max_examples=40, deadline=None)
@given(lines=programs(), turns=st.integers(0, 2))
def test_random_programs(define, interpret, lines, turns):
    body = "\n        ".join(lines)
    source = f"""
# {next(COUNTER)}
@triton.jit
def kernel(a, b, x, out, outf, TURNS: tl.constexpr, N: tl.constexpr):
    place = tl.arange(0, N)
    i0, i1 = tl.load(a + place), tl.load(b + place)
    f0, f1 = tl.load(x + place), tl.load(x + N + place)
    for turn in range(0, TURNS):
        {body}
    tl.store(out + place, i0)
    tl.store(out + N + place, i1)
    tl.store(outf + place, f0)
    tl.store(outf + N + place, f1)
"""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-100, 100, (2, N)).astype(np.int32)
    x = rng.normal(size=2 * N).astype(np.float32)
    arrays = [a, b, x, np.zeros(2 * N, np.int32), np.zeros(2 * N, np.float32)]
    constants = {"TURNS": turns, "N": N}
    expected = interpret("kernel", HEADER + source, arrays, constants, (1,))
    define(source).kernel[(1,)](*arrays, **constants)
    largest = np.abs(expected[4]).max()
    np.testing.assert_allclose(arrays[4], expected[4], rtol=1e-3, atol=1e-5 * largest + 1e-6)
    np.testing.assert_array_equal(arrays[3], expected[3])
