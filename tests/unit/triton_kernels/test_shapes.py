"""Reductions, scans and what moves elements, each through a kernel, against NumPy."""

import numpy as np
import pytest

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


def test_histogram(define):
    kernel = define("""
    @triton.jit
    def kernel(a, out, N: tl.constexpr, BINS: tl.constexpr):
        tl.store(out + tl.arange(0, BINS), tl.histogram(tl.load(a + tl.arange(0, N)), BINS))
    """).kernel
    x, out = np.random.default_rng(13).integers(0, 16, 256).astype(np.int32), np.zeros(16, np.int32)
    kernel[(1,)](x, out, N=256, BINS=16)
    np.testing.assert_array_equal(out, np.bincount(x, minlength=16))
