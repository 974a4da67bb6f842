"""``device_print`` and ``device_assert``."""

import numpy as np
import pytest

from streaming_attention.triton.cpu.kernel import DeviceAssertionError


def test_print_shows_program_place_and_value(define, capfd):
    kernel = define("""
    @triton.jit
    def kernel(a, n, N: tl.constexpr):
        x = tl.load(a + tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :])
        tl.device_print("100% of x", x)
        tl.device_print("n", n, n.to(tl.uint8), hex=True)
        tl.device_print("nothing")
    """).kernel
    kernel[(1, 2)](np.arange(4, dtype=np.float32), 258, N=2)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 * (4 + 2 + 1)
    assert "pid (0, 1, 0) idx (1, 0) 100% of x: 2.000000" in lines
    assert "pid (0, 0, 0) idx () n: 0x00000102" in lines
    assert "pid (0, 0, 0) idx () n: 0x02" in lines
    assert sum(line.rstrip(": ") == "pid (0, 1, 0) idx () nothing" for line in lines) == 1


def test_print_of_each_type(define, capfd):
    kernel = define("""
    @triton.jit
    def kernel(a, b, c, d):
        tl.device_print("v", tl.load(a), tl.load(b), tl.load(c), tl.load(d) > 0)
    """).kernel
    arrays = [np.array([-3], np.int8), np.array([2**63 + 5], np.uint64), np.array([0.5], np.float16)]
    kernel[(1,)](*arrays, np.array([1.0]))
    lines = capfd.readouterr().out.splitlines()
    assert [line.partition("v: ")[2] for line in lines] == ["-3", str(2**63 + 5), "0.500000", "1"]


@pytest.fixture(scope="module")
def checked(define):
    return define("""
    @triton.jit(debug=True)
    def checked(a, out, limit, N: tl.constexpr):
        place = tl.arange(0, N)
        x = tl.load(a + place)
        tl.device_assert(limit > 0, "limit is positive")
        tl.device_assert(x < limit, 'x is below "limit", by 100%')
        tl.store(out + place, x)
    """).checked


def test_an_assertion_that_fails_is_raised_with_its_line(checked):
    x, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    with pytest.raises(DeviceAssertionError, match=r'checked: .*x is below "limit", by 100%.*kernels_\d+\.py:10'):
        checked[(1,)](x, out, 63, N=64)
    assert not out.any()
    with pytest.raises(DeviceAssertionError, match="limit is positive"):
        checked[(1,)](x, out, 0, N=64)
    checked[(1,)](x, out, 64, N=64)
    np.testing.assert_array_equal(out, x)


def test_assertions_inside_reductions_and_scans(define):
    kernel = define("""
    @triton.jit
    def plus(a, b):
        tl.device_assert(a.to(tl.int64) + b < 1000, "sum fits")
        return a + b

    @triton.jit(debug=True)
    def kernel(a, out, sums, M: tl.constexpr, N: tl.constexpr):
        x = tl.load(a + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])
        tl.store(out + tl.arange(0, N), tl.reduce(x, 0, plus))
        tl.store(sums + tl.arange(0, N), tl.associative_scan(tl.reduce(x, 0, plus), 0, plus))
    """).kernel
    x = np.ones((16, 32), np.int32)
    out, sums = np.zeros(32, np.int32), np.zeros(32, np.int32)
    kernel[(1,)](x, out, sums, M=16, N=32)
    np.testing.assert_array_equal(out, x.sum(0))
    np.testing.assert_array_equal(sums, x.sum(0).cumsum())
    with pytest.raises(DeviceAssertionError, match="sum fits"):
        kernel[(1,)](100 * x, out, sums, M=16, N=32)
