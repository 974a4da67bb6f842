"""Loops, branches, atomics, loads and stores that meet each other."""

import numpy as np
import pytest


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


def test_values_that_are_used_twice_again_and_again_compile_in_linear_time(define):
    """Walked as trees they are 2^40 operations, and this test doesn't end."""
    kernel = define("""
    @triton.jit
    def kernel(x, out, turns, N: tl.constexpr):
        place = tl.arange(0, N)
        value = tl.load(x + place)
        for turn in range(0, turns):
            for step in tl.static_range(40):
                place = place * place - place
                value = value * value + value
            place = place & (N - 1)
            value += tl.load(x + place)
        tl.store(out + tl.arange(0, N), value)
    """).kernel
    x = np.arange(16, dtype=np.int32)
    out = np.zeros_like(x)
    kernel[(1,)](x, out, 2, N=16)
    place, value = x.copy(), x.copy()
    for _ in range(2):
        for _ in range(40):
            place, value = place * place - place, value * value + value
        place &= 15
        value += x[place]
    np.testing.assert_array_equal(out, value)
