"""Functions, operators and casts, each through a kernel of its own, against NumPy."""

import numpy as np
import pytest

SIZE = 64
INTS = ("int8", "int16", "int32", "int64")
FLOATS = ("float16", "float32", "float64")

UNARY = {
    "tl.exp(x)": (np.exp, 4e-7), "tl.exp2(x)": (np.exp2, 4e-7),
    "tl.log(tl.abs(x))": (lambda x: np.log(np.abs(x)), 4e-7),
    "tl.log2(tl.abs(x))": (lambda x: np.log2(np.abs(x)), 4e-7),
    "tl.sqrt(tl.abs(x))": (lambda x: np.sqrt(np.abs(x)), 1e-7),
    "tl.rsqrt(tl.abs(x))": (lambda x: 1 / np.sqrt(np.abs(x)), 3e-7),
    "tl.sin(x)": (np.sin, 4e-7), "tl.cos(x)": (np.cos, 4e-7),
    "tl.floor(x)": (np.floor, 0), "tl.ceil(x)": (np.ceil, 0), "tl.abs(x)": (np.abs, 0), "-x": (np.negative, 0),
    "tl.sigmoid(x)": (lambda x: 1 / (1 + np.exp(-x)), 4e-7),
    "tl.sqrt_rn(tl.abs(x))": (lambda x: np.sqrt(np.abs(x)), 1e-7),
    "tl.fma(x, x, x)": (lambda x: x * x + x, 4e-7), "tl.clamp(x, -1.0, 1.0)": (lambda x: np.clip(x, -1, 1), 0),
    "tl.erf(x)": (None, 4e-7), "tl.where(x > 0, x, 2.0 * x)": (lambda x: np.where(x > 0, x, 2 * x), 0),
    "tl.math.div_rn(x, x + 10.0)": (lambda x: x / (x + 10), 1e-7),
}  # fmt: skip

BINARY = {
    "x + y": np.add, "x - y": np.subtract, "x * y": np.multiply, "x & y": np.bitwise_and, "x | y": np.bitwise_or,
    "x ^ y": np.bitwise_xor, "tl.minimum(x, y)": np.minimum, "tl.maximum(x, y)": np.maximum,
    "x // y": lambda x, y: np.trunc(x.astype(float) / y).astype(x.dtype), "x % y": np.fmod,
    "(x < y).to(x.dtype)": np.less, "(x >= y).to(x.dtype)": np.greater_equal, "(x == y).to(x.dtype)": np.equal,
    "(x != y).to(x.dtype)": np.not_equal, "x << (y & 7)": lambda x, y: np.left_shift(x, y & 7),
    "x >> (y & 7)": lambda x, y: np.right_shift(x, y & 7), "~x": lambda x, y: ~x,
    "tl.where(x > y, x, y)": np.maximum,
}  # fmt: skip


def elementwise(define, expression):
    return define(f"""
    @triton.jit
    def kernel(a, b, out, n, SIZE: tl.constexpr):
        place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
        inside = place < n
        x = tl.load(a + place, mask=inside)
        y = tl.load(b + place, mask=inside, other=1)
        tl.store(out + place, {expression}, mask=inside)
    """).kernel


def run(kernel, *arrays, n=None):
    out = np.zeros_like(arrays[0])
    kernel[(2,)](*arrays, out, n or out.size, SIZE=SIZE)
    return out


@pytest.mark.parametrize("expression", UNARY)
def test_functions_of_floats(define, expression):
    function, tolerance = UNARY[expression]
    if function is None:
        function = np.vectorize(__import__("math").erf)
    x = np.random.default_rng(0).normal(0, 3, 100).astype(np.float32)
    out = run(elementwise(define, expression), x, x)
    np.testing.assert_allclose(out, function(x.astype(np.float64)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("expression", BINARY)
def test_operators_of_integers(define, expression, dtype):
    rng = np.random.default_rng(1)
    x, y = (rng.integers(-90, 90, 100).astype(dtype) for _ in range(2))
    y[y == 0] = 7
    out = run(elementwise(define, expression), x, y)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, BINARY[expression](x, y).astype(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("expression", ["x + y", "x - y", "x * y", "x / y", "tl.minimum(x, y)", "tl.maximum(x, y)"])
def test_operators_of_floats(define, expression, dtype):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=100).astype(dtype) for _ in range(2))
    expected = eval(expression, {"x": x, "y": y, "tl": np})
    np.testing.assert_allclose(run(elementwise(define, expression), x, y), expected, rtol=np.finfo(dtype).eps)


@pytest.mark.parametrize("target", (*INTS, "uint8", "uint32", *FLOATS))
@pytest.mark.parametrize("source", (*INTS, "uint8", "uint32", *FLOATS))
def test_casts(define, source, target):
    kernel = define("""
    @triton.jit
    def kernel(a, out, SIZE: tl.constexpr):
        place = tl.arange(0, SIZE)
        tl.store(out + place, tl.load(a + place).to(out.dtype.element_ty))
    """).kernel
    low = 0 if "uint" in source + target else -100
    values = np.random.default_rng(2).uniform(low, 100, SIZE)
    x, out = values.astype(source), np.zeros(SIZE, target)
    kernel[(1,)](x, out, SIZE=SIZE)
    np.testing.assert_array_equal(out, x.astype(target))


def test_bfloat16_through_uint16(define):
    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define("""
    @triton.jit
    def kernel(a, out, SIZE: tl.constexpr):
        place = tl.arange(0, SIZE)
        tl.store(out + place, tl.load(a + place).to(tl.float32) * 2)
    """).kernel
    x = np.random.default_rng(2).normal(size=SIZE).astype(np.float32)
    bits, out = (x.view(np.uint32) >> 16).astype(np.uint16), np.zeros(SIZE, np.float32)
    kernel[(1,)](Tensor(bits, "bfloat16"), out, SIZE=SIZE)
    np.testing.assert_array_equal(out, 2 * (bits.astype(np.uint32) << 16).view(np.float32))


def test_random_numbers_are_tritons(define):
    kernel = define("""
    @triton.jit
    def kernel(out, seed, N: tl.constexpr):
        place = tl.arange(0, N)
        tl.store(out + place, tl.rand(seed, place))
    """).kernel
    out = np.zeros(1024, np.float32)
    kernel[(1,)](out, 42, N=1024)
    assert 0.45 < out.mean() < 0.55
    assert out.min() >= 0 and out.max() < 1
    assert np.unique(out).size > 1000


def lowest_bit(x):
    return [(int(n) & -int(n)).bit_length() for n in (x * np.float32(100)).astype(np.int32)]


LIBDEVICE = {
    "tanh(x)": np.tanh, "rsqrt(tl.abs(x))": lambda x: 1 / np.sqrt(np.abs(x)), "rint(x * 4)": lambda x: np.rint(x * 4),
    "pow(tl.abs(x), x)": lambda x: np.abs(x) ** x, "fast_expf(x)": np.exp, "fma(x, x, x)": lambda x: x * x + x,
    "log1p(tl.abs(x))": lambda x: np.log1p(np.abs(x)), "saturatef(x)": lambda x: np.clip(x, 0, 1),
    "fmod(x, 0.75)": lambda x: np.fmod(x, 0.75), "isnan(tl.sqrt(x)).to(tl.float32)": lambda x: x < 0,
    "isinf(1 / (x - x)).to(tl.float32)": np.ones_like, "finitef(tl.sqrt(x)).to(tl.float32)": lambda x: x > 0,
    "signbit(x).to(tl.float32)": np.signbit, "ffs((x * 100).to(tl.int32)).to(tl.float32)": lowest_bit,
    "popc((x * 100).to(tl.int32)).to(tl.float32)":
        lambda x: np.bitwise_count((x * np.float32(100)).astype(np.int32).view(np.uint32)),
    "clz(tl.abs(x * 100).to(tl.int32)).to(tl.float32)":
        lambda x: 31 - np.floor(np.log2(np.maximum(np.abs(x * np.float32(100)).astype(int), 0.5))),
}  # fmt: skip


@pytest.mark.parametrize("expression", LIBDEVICE)
def test_libdevice(define, expression):
    kernel = define(f"""
    from triton.language.extra import libdevice

    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        x = tl.load(a + tl.arange(0, N))
        tl.store(out + tl.arange(0, N), libdevice.{expression})
    """).kernel
    x, out = np.linspace(-3, 3, 64, dtype=np.float32), np.zeros(64, np.float32)
    kernel[(1,)](x, out, N=64)
    np.testing.assert_allclose(out, np.asarray(LIBDEVICE[expression](x), np.float32), rtol=4e-7, atol=2e-7)


@pytest.mark.parametrize("dtype", INTS)
@pytest.mark.parametrize("expression", ["x // y", "x % y"])
def test_divisions_that_trap_on_this_cpu(define, expression, dtype):
    least = np.iinfo(dtype).min
    x, y = np.array([least, 7, least, 5], dtype), np.array([-1, 0, 0, -1], dtype)
    kernel = elementwise(define, expression)
    out = run(kernel, np.tile(x, 25), np.tile(y, 25))  # that it comes back is most of it
    assert (out[::4] == (least if "//" in expression else 0)).all()
    assert (out[3::4] == (-5 if "//" in expression else 0)).all()


def test_loops_that_are_unrolled_a_thousand_times(define):
    kernel = define("""
    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        x = tl.load(a + tl.arange(0, N))
        for i in tl.static_range(1000):
            x = x * 0.5 + i
        tl.store(out + tl.arange(0, N), x)
    """).kernel
    x, out = np.ones(16, np.float32), np.zeros(16, np.float32)
    kernel[(1,)](x, out, N=16)
    for i in range(1000):
        x = x * np.float32(0.5) + i
    np.testing.assert_allclose(out, x, rtol=1e-5)


def test_an_unsupported_operation_is_named_with_its_line(define):
    from streaming_attention.triton.cpu.ir import UnsupportedOperation

    kernel = define("""
    @triton.jit
    def kernel(a, N: tl.constexpr):
        x = tl.load(a + tl.arange(0, N))
        y = tl.inline_asm_elementwise("mov $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1)
        tl.store(a + tl.arange(0, N), y)
    """).kernel
    with pytest.raises(UnsupportedOperation, match=r"tt\.elementwise_inline_asm.*kernels_\d+\.py:8"):
        kernel[(1,)](np.zeros(32, np.int32), N=32)
