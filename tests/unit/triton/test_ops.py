"""Every operation of TTIR alone, through a kernel, against NumPy."""

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


REDUCTIONS = {"tl.sum(x, {axis})": np.sum, "tl.max(x, {axis})": np.max, "tl.min(x, {axis})": np.min,
              "tl.argmax(x, {axis})": np.argmax, "tl.argmin(x, {axis})": np.argmin}  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 64), (4, 8), (64, 4), (32, 32), (2, 256)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("expression", REDUCTIONS)
def test_reductions(define, expression, axis, shape):
    kernel = define(f"""
    @triton.jit
    def kernel(a, out, M: tl.constexpr, N: tl.constexpr, OUT: tl.constexpr):
        x = tl.load(a + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
        tl.store(out + tl.arange(0, OUT), {expression.format(axis=axis)})
    """).kernel
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    expected = REDUCTIONS[expression](x, axis)
    out = np.zeros(expected.shape, np.int32 if "arg" in expression else np.float32)
    kernel[(1,)](x, out, M=shape[0], N=shape[1], OUT=out.size)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-5)


def test_reduction_with_a_function_of_ones_own_and_two_results(define):
    kernel = define("""
    @triton.jit
    def welford(mean_a, m2_a, weight_a, mean_b, m2_b, weight_b):
        delta = mean_b - mean_a
        weight = weight_a + weight_b
        return mean_a + delta * weight_b / weight, m2_a + m2_b + delta * delta * weight_a * weight_b / weight, weight

    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        x = tl.load(a + tl.arange(0, N))
        mean, m2, weight = tl.reduce((x, tl.zeros([N], tl.float32), tl.full([N], 1.0, tl.float32)), 0, welford)
        tl.store(out, mean)
        tl.store(out + 1, m2 / weight)
    """).kernel
    x, out = np.random.default_rng(4).normal(5, 2, 256).astype(np.float32), np.zeros(2, np.float32)
    kernel[(1,)](x, out, N=256)
    np.testing.assert_allclose(out, [x.mean(), x.var()], rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_scans(define, axis, reverse):
    kernel = define(f"""
    @triton.jit
    def kernel(a, out, M: tl.constexpr, N: tl.constexpr):
        place = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
        tl.store(out + place, tl.cumsum(tl.load(a + place), {axis}, reverse={reverse}))
    """).kernel
    x = np.random.default_rng(5).normal(size=(8, 32)).astype(np.float32)
    out = np.zeros_like(x)
    kernel[(1,)](x, out, M=8, N=32)
    turned = np.flip(x, axis) if reverse else x
    expected = np.cumsum(turned, axis)
    np.testing.assert_allclose(out, np.flip(expected, axis) if reverse else expected, rtol=1e-5, atol=1e-5)


MOVES = {
    "tl.trans(x)": lambda x: x.T, "tl.reshape(x, [N, M])": lambda x: x.reshape(x.shape[::-1]),
    "tl.ravel(x)": np.ravel, "tl.reshape(tl.trans(x), [M * N])": lambda x: x.T.ravel(),
    "tl.sort(x)": lambda x: np.sort(x, 1), "tl.flip(x, 1)": lambda x: x[:, ::-1],
    "tl.reshape(tl.join(x, -x), [M, 2 * N])": lambda x: np.stack([x, -x], -1).reshape(x.shape[0], -1),
    "tl.interleave(x, x + 1)": lambda x: np.stack([x, x + 1], -1).reshape(x.shape[0], -1),
    "tl.split(tl.reshape(x, [M, N // 2, 2]))[1]": lambda x: x[:, 1::2],
    "tl.cat(tl.ravel(x), tl.ravel(x), can_reorder=True)": lambda x: np.concatenate([x.ravel(), x.ravel()]),
    "tl.permute(tl.reshape(x, [M, 2, N // 2]), [1, 2, 0])": lambda x: x.reshape(x.shape[0], 2, -1).transpose(1, 2, 0),
    "tl.gather(x, tl.broadcast_to((tl.arange(0, N) ^ 1)[None, :], [M, N]), 1)":
        lambda x: x[:, np.arange(x.shape[1]) ^ 1],
    "tl.broadcast_to(tl.sum(x, 1)[:, None], [M, N])": lambda x: np.broadcast_to(x.sum(1, keepdims=True), x.shape),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(4, 16), (32, 8), (16, 64)])
@pytest.mark.parametrize("expression", MOVES)
def test_moves(define, expression, shape):
    expected = MOVES[expression](np.random.default_rng(6).normal(size=shape).astype(np.float32))
    kernel = define(f"""
    @triton.jit
    def kernel(a, out, M: tl.constexpr, N: tl.constexpr, OUT: tl.constexpr):
        x = tl.load(a + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
        tl.store(out + tl.arange(0, OUT), tl.reshape({expression}, [OUT]))
    """).kernel
    x = np.random.default_rng(6).normal(size=shape).astype(np.float32)
    out = np.zeros(expected.size, np.float32)
    kernel[(1,)](x, out, M=shape[0], N=shape[1], OUT=out.size)
    np.testing.assert_allclose(out, expected.ravel(), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name, expected", [
    ("add", lambda old, x: old + 3 * x), ("max", lambda old, x: np.maximum(old, x)),
    ("min", lambda old, x: np.minimum(old, x)), ("xchg", lambda old, x: x),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_atomics(define, name, expected, dtype):
    kernel = define(f"""
    @triton.jit
    def kernel(a, out, old, n, N: tl.constexpr):
        place = tl.arange(0, N)
        before = tl.atomic_{name}(out + place, tl.load(a + place), mask=place < n)
        tl.store(old + place, before, mask=place < n)
    """).kernel
    rng = np.random.default_rng(7)
    x, out = (rng.integers(-9, 9, 32).astype(dtype) for _ in range(2))
    start, old = out.copy(), np.zeros_like(x)
    kernel[(3,)](x, out, old, 30, N=32)
    np.testing.assert_array_equal(out[:30], expected(start, x)[:30])
    np.testing.assert_array_equal(out[30:], start[30:])


def test_compare_and_swap_makes_a_lock(define):
    kernel = define("""
    @triton.jit
    def kernel(lock, total):
        while tl.atomic_cas(lock, 0, 1) == 1:
            pass
        tl.store(total, tl.load(total) + 1)
        tl.atomic_xchg(lock, 0)
    """).kernel
    lock, total = np.zeros(1, np.int32), np.zeros(1, np.int32)
    kernel[(500,)](lock, total)
    assert total[0] == 500


def test_control_flow(define):
    kernel = define("""
    @triton.jit
    def kernel(out, n, N: tl.constexpr):
        pid = tl.program_id(0)
        if pid >= n:
            return
        x = tl.arange(0, N).to(tl.float32)
        turns = 0
        while tl.sum(x, 0) < 1000.0 * (pid + 1):
            x = x * 2 + 1
            turns += 1
        if turns % 2 == 0:
            x = -x
        else:
            y = tl.sum(x, 0)
            x = x / y
        for i in range(0, turns):
            for j in range(i, turns):
                x += i * j
        tl.store(out + pid * N + tl.arange(0, N), x)
    """).kernel
    out = np.zeros((4, 16), np.float32)
    kernel[(4,)](out, 3, N=16)
    for pid in range(3):
        x, turns = np.arange(16, dtype=np.float32), 0
        while x.sum() < 1000 * (pid + 1):
            x, turns = x * 2 + 1, turns + 1
        x = -x if turns % 2 == 0 else x / x.sum()
        x = x + sum(i * j for i in range(turns) for j in range(i, turns))
        np.testing.assert_allclose(out[pid], x, rtol=1e-6)
    assert not out[3].any()


def test_loop_that_moves_pointers_and_swaps_what_it_carries(define):
    kernel = define("""
    @triton.jit
    def kernel(a, out, n, stride, N: tl.constexpr):
        place = a + tl.arange(0, N)
        x, y = tl.zeros([N], tl.float32), tl.full([N], 1.0, tl.float32)
        for i in range(0, n):
            x, y = y, x + tl.load(place)
            place += stride
        tl.store(out + tl.arange(0, N), x)
        tl.store(out + N + tl.arange(0, N), y)
        tl.store(out + 2 * N + tl.arange(0, N), tl.load(place - stride))
    """).kernel
    a = np.random.default_rng(8).normal(size=(5, 32)).astype(np.float32)
    out = np.zeros((3, 32), np.float32)
    kernel[(1,)](a, out, 5, 32, N=32)
    x, y = np.zeros(32, np.float32), np.ones(32, np.float32)
    for row in a:
        x, y = y, x + row
    np.testing.assert_allclose(out, [x, y, a[-1]], rtol=1e-6)


@pytest.mark.parametrize("strides", [(1, 40), (40, 1), (3, 130), (-40, 1)])
def test_strided_loads_and_stores(define, strides):
    kernel = define("""
    @triton.jit
    def kernel(a, out, sm, sn, om, on, m, n, M: tl.constexpr, N: tl.constexpr):
        i, j = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
        x = tl.load(a + i * sm + j * sn, mask=(i < m) & (j < n), other=7.0)
        tl.store(out + i * om + j * on, x, mask=(i < m) & (j < n))
    """).kernel
    memory = np.random.default_rng(9).normal(size=6000).astype(np.float32)
    start = memory[2000:]
    m, n = 29, 31
    expected = np.array([[memory[2000 + i * strides[0] + j * strides[1]] for j in range(n)] for i in range(m)])
    for shape, steps in (((m, n), (n, 1)), ((n, m), (1, m))):
        out = np.zeros(shape, np.float32)
        kernel[(1,)](start, out, *strides, *steps, m, n, M=32, N=32)
        np.testing.assert_array_equal(out if steps[1] == 1 else out.T, expected)


def test_store_may_overlap_what_it_was_loaded_from(define):
    kernel = define("""
    @triton.jit
    def kernel(a, N: tl.constexpr):
        place = tl.arange(0, N)
        x = tl.load(a + place)
        tl.store(a + place + 1, x)
    """).kernel
    a = np.arange(129, dtype=np.float32)
    kernel[(1,)](a, N=128)
    np.testing.assert_array_equal(a, [0, *range(128)])


def test_load_before_a_store_keeps_its_value(define):
    kernel = define("""
    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        place = tl.arange(0, N)
        x = tl.load(a + place)
        tl.store(a + place, x + 1)
        tl.store(out + place, x)
    """).kernel
    a, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    kernel[(1,)](a, out, N=64)
    np.testing.assert_array_equal(out, np.arange(64))
    np.testing.assert_array_equal(a, np.arange(64) + 1)


@pytest.mark.parametrize("dtype, bound", [("float32", 1e-6), ("float16", 1e-6), ("float64", 1e-14), ("int8", 0)])
@pytest.mark.parametrize(
    "m, n, k", [(16, 16, 16), (32, 64, 128), (1, 32, 64), (4, 16, 32), (128, 128, 16), (2, 8, 4), (8, 256, 32)]
)
@pytest.mark.parametrize("ta, tb", [(False, False), (False, True), (True, False), (True, True)])
def test_dot(define, m, n, k, ta, tb, dtype, bound):
    kernel = define("""
    @triton.jit
    def kernel(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, TA: tl.constexpr, TB: tl.constexpr):
        i, j, l = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
        if TA:
            x = tl.trans(tl.load(a + l[:, None] * M + i[None, :]))
        else:
            x = tl.load(a + i[:, None] * K + l[None, :])
        if TB:
            y = tl.trans(tl.load(b + j[:, None] * K + l[None, :]))
        else:
            y = tl.load(b + l[:, None] * N + j[None, :])
        start = tl.load(c + i[:, None] * N + j[None, :])
        total = tl.dot(x, y, start, input_precision="ieee", out_dtype=c.dtype.element_ty)
        tl.store(c + i[:, None] * N + j[None, :], total)
    """).kernel
    rng = np.random.default_rng(10)
    a, b = (rng.normal(0, 3, shape).astype(dtype) for shape in ((m, k), (k, n)))
    out = {"int8": np.int32, "float64": np.float64}.get(dtype, np.float32)
    c = rng.normal(0, 3, (m, n)).astype(out)
    expected = c + a.astype(np.float64) @ b.astype(np.float64)
    kernel[(1,)](np.ascontiguousarray(a.T) if ta else a, np.ascontiguousarray(b.T) if tb else b, c,
                 M=m, N=n, K=k, TA=ta, TB=tb)  # fmt: skip
    np.testing.assert_allclose(c, expected, atol=bound * 9 * k + 1e-30, rtol=bound)


def test_dot_of_bfloat16(define):
    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define("""
    @triton.jit
    def kernel(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
        i, j, l = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
        x = tl.load(a + i[:, None] * K + l[None, :])
        tl.store(c + i[:, None] * N + j[None, :], tl.dot(x, tl.load(b + l[:, None] * N + j[None, :])))
    """).kernel
    rng = np.random.default_rng(11)
    bits = [
        (rng.normal(size=shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        for shape in ((32, 64), (64, 32))
    ]
    a, b = ((part.astype(np.uint32) << 16).view(np.float32) for part in bits)
    c = np.zeros((32, 32), np.float32)
    kernel[(1,)](*(Tensor(part, "bfloat16") for part in bits), c, M=32, N=32, K=64)
    np.testing.assert_allclose(c, a @ b, atol=1e-4)


def test_batched_dot(define):
    kernel = define("""
    @triton.jit
    def kernel(a, b, c, B: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
        h, i, j, l = tl.arange(0, B)[:, None, None], tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
        x = tl.load(a + h * M * K + i[None, :, None] * K + l[None, None, :])
        y = tl.load(b + h * N * K + l[None, :, None] * N + j[None, None, :])
        tl.store(c + h * M * N + i[None, :, None] * N + j[None, None, :], tl.dot(x, y, input_precision="ieee"))
    """).kernel
    rng = np.random.default_rng(12)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 16, 32), (4, 32, 64)))
    c = np.zeros((4, 16, 64), np.float32)
    kernel[(1,)](a, b, c, B=4, M=16, N=64, K=32)
    np.testing.assert_allclose(c, a @ b, atol=1e-4)


def test_histogram(define):
    kernel = define("""
    @triton.jit
    def kernel(a, out, N: tl.constexpr, BINS: tl.constexpr):
        tl.store(out + tl.arange(0, BINS), tl.histogram(tl.load(a + tl.arange(0, N)), BINS))
    """).kernel
    x, out = np.random.default_rng(13).integers(0, 16, 256).astype(np.int32), np.zeros(16, np.int32)
    kernel[(1,)](x, out, N=256, BINS=16)
    np.testing.assert_array_equal(out, np.bincount(x, minlength=16))


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


def test_libdevice_goes_to_the_c_library(define):
    kernel = define("""
    from triton.language.extra import libdevice

    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        place = tl.arange(0, N)
        tl.store(out + place, libdevice.tanh(tl.load(a + place)))
    """).kernel
    x, out = np.linspace(-3, 3, 64, dtype=np.float32), np.zeros(64, np.float32)
    kernel[(1,)](x, out, N=64)
    np.testing.assert_allclose(out, np.tanh(x), rtol=3e-7)


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
