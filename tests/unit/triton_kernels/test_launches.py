"""Launching: errors that name what is wrong, the disk cache, concurrency, the tutorials' kernels."""

import threading

import numpy as np
import pytest


@pytest.fixture(scope="module")
def add(define):
    return define("""
    @triton.jit
    def add(x, y, out, n, BLOCK: tl.constexpr):
        place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = place < n
        tl.store(out + place, tl.load(x + place, mask=inside) + tl.load(y + place, mask=inside), mask=inside)
    """).add


def test_vector_add(add):
    x, y = np.random.default_rng(0).normal(size=(2, 98432)).astype(np.float32)
    out = np.zeros_like(x)
    add[(97,)](x, y, out, x.size, BLOCK=1024)
    np.testing.assert_array_equal(out, x + y)


@pytest.mark.parametrize("grid", [(0,), (4, 0), (-1,), (-1, -1), (2**20, 2**20)])
def test_grids_that_cannot_be(add, grid):
    from streaming_attention.triton.cpu.kernel import LaunchError

    x = np.zeros(4, np.float32)
    with pytest.raises(LaunchError, match="add: grid"):
        add[grid](x, x, x, 4, BLOCK=4)


def test_tiles_that_are_too_large(define, monkeypatch):
    from streaming_attention.triton.cpu import lower

    monkeypatch.setattr(lower, "SCRATCH_LIMIT", 1 << 20)
    kernel = define("""
    @triton.jit
    def huge(x, N: tl.constexpr):
        place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
        y = tl.load(x + place)
        tl.store(x + place, tl.dot(y, y) + tl.dot(y, tl.trans(y)))
    """).huge
    with pytest.raises(MemoryError, match=r"huge: .* use smaller tiles"):
        kernel[(1,)](np.zeros(4, np.float32), N=512)


def test_wrong_arguments_of_a_shipped_kernel():
    from streaming_attention.triton import prebuilt
    from streaming_attention.triton import specializations as known
    from streaming_attention.triton.cpu.kernel import LaunchError

    kernel = prebuilt.kernel(known.merge("fp32", 32))
    x = np.zeros(4, np.float32)
    with pytest.raises(LaunchError, match="merge: 2 arguments given, 13 needed"):
        kernel((1,), x, x)
    with pytest.raises(LaunchError, match=r"argument 4: 1\.5 is not a i64"):
        kernel((1,), x, x, x, x, 1.5, 0, 0, 0, 0, 1, 1, 1, 4)
    with pytest.raises(LaunchError, match="str is neither an array nor a tensor"):
        kernel((1,), "x", x, x, x, 0, 0, 0, 0, 0, 1, 1, 1, 4)


def test_a_kernel_compiled_before_comes_from_tritons_cache(add, monkeypatch):
    from streaming_attention.triton.plugin import compiler

    x = np.zeros(64, np.float32)
    add[(1,)](x, x, x, 64, BLOCK=64)
    monkeypatch.setattr(compiler, "lower_ttir", None)
    for caches in add.device_caches.values():
        caches[0].clear()
    add[(1,)](x, x, x, 64, BLOCK=64)


def test_launches_from_several_threads(add):
    x = np.arange(10000, dtype=np.float32)
    outs = [np.zeros_like(x) for _ in range(4)]

    def work(out):
        for _ in range(20):
            add[(100,)](x, x, out, x.size, BLOCK=128)

    threads = [threading.Thread(target=work, args=(out,)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((out == 2 * x).all() for out in outs)


def test_layer_norm(define):
    kernel = define("""
    @triton.jit
    def layer_norm(x, y, w, b, mean, rstd, stride, n, eps, BLOCK: tl.constexpr):
        row = tl.program_id(0)
        y += row * stride
        x += row * stride
        total = tl.zeros([BLOCK], dtype=tl.float32)
        for off in range(0, n, BLOCK):
            cols = off + tl.arange(0, BLOCK)
            total += tl.load(x + cols, mask=cols < n, other=0.).to(tl.float32)
        mu = tl.sum(total, axis=0) / n
        spread = tl.zeros([BLOCK], dtype=tl.float32)
        for off in range(0, n, BLOCK):
            cols = off + tl.arange(0, BLOCK)
            a = tl.load(x + cols, mask=cols < n, other=0.).to(tl.float32)
            a = tl.where(cols < n, a - mu, 0.)
            spread += a * a
        scale = 1 / tl.sqrt(tl.sum(spread, axis=0) / n + eps)
        tl.store(mean + row, mu)
        tl.store(rstd + row, scale)
        for off in range(0, n, BLOCK):
            cols = off + tl.arange(0, BLOCK)
            mask = cols < n
            hat = (tl.load(x + cols, mask=mask, other=0.).to(tl.float32) - mu) * scale
            tl.store(y + cols, hat * tl.load(w + cols, mask=mask) + tl.load(b + cols, mask=mask), mask=mask)
    """).layer_norm
    rng = np.random.default_rng(1)
    x, (w, b) = rng.normal(size=(37, 500)).astype(np.float32), rng.normal(size=(2, 500)).astype(np.float32)
    y, mean, rstd = np.zeros_like(x), np.zeros(37, np.float32), np.zeros(37, np.float32)
    kernel[(37,)](x, y, w, b, mean, rstd, 500, 500, 1e-5, BLOCK=128)
    np.testing.assert_allclose(mean, x.mean(1), atol=1e-6)
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * w + b
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("m, n, k", [(128, 128, 64), (100, 70, 50), (257, 129, 200)])
def test_matmul_with_grouped_programs_and_wrapped_rows(define, m, n, k):
    kernel = define("""
    @triton.jit
    def matmul(a, b, c, M, N, K, am, ak, bk, bn, cm, cn,
               BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, G: tl.constexpr):
        pid = tl.program_id(0)
        blocks_m, blocks_n = tl.cdiv(M, BM), tl.cdiv(N, BN)
        in_group = G * blocks_n
        first = pid // in_group * G
        size = min(blocks_m - first, G)
        pid_m, pid_n = first + (pid % in_group) % size, (pid % in_group) // size
        rows = (pid_m * BM + tl.arange(0, BM)) % M
        columns = (pid_n * BN + tl.arange(0, BN)) % N
        inner = tl.arange(0, BK)
        at_a = a + rows[:, None] * am + inner[None, :] * ak
        at_b = b + inner[:, None] * bk + columns[None, :] * bn
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for i in range(0, tl.cdiv(K, BK)):
            x = tl.load(at_a, mask=inner[None, :] < K - i * BK, other=0.0)
            y = tl.load(at_b, mask=inner[:, None] < K - i * BK, other=0.0)
            total = tl.dot(x, y, total)
            at_a += BK * ak
            at_b += BK * bk
        rows, columns = pid_m * BM + tl.arange(0, BM), pid_n * BN + tl.arange(0, BN)
        tl.store(c + rows[:, None] * cm + columns[None, :] * cn, total,
                 mask=(rows[:, None] < M) & (columns[None, :] < N))
    """).matmul
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    c = np.zeros((m, n), np.float32)
    grid = (-(-m // 64) * -(-n // 64),)
    kernel[grid](a, b, c, m, n, k, k, 1, n, 1, n, 1, BM=64, BN=64, BK=32, G=8)
    np.testing.assert_allclose(c, a @ b, atol=1e-3)
