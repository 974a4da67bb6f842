"""Matrix products of all sizes, layouts and element types."""

import numpy as np
import pytest


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
