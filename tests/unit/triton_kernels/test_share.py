"""Memory that one tensor takes over from another, tensors written by the reduction that reads them, and operands that
several products pack once."""

import ctypes
import mmap

import numpy as np
import pytest

from streaming_attention.triton import prebuilt
from streaming_attention.triton import specializations as known
from streaming_attention.triton.cpu.kernel import lower_ttir
from streaming_attention.triton.cpu.parser import parse
from streaming_attention.triton.cpu.plan import make_plan
from streaming_attention.triton.cpu.target import make_target

LIBC = ctypes.CDLL(None)

BODIES = {
    "softmax: p is summed, then used": ("p = tl.exp2(s)", "p / tl.sum(p, 1)[:, None]"),
    "summed down the columns": ("p = tl.exp2(s)", "p / tl.sum(p, 0)[None, :]"),
    "the product is read again behind p": ("p = tl.exp2(s)", "p / tl.sum(p, 1)[:, None] + s"),
    "the product is read across": ("p = tl.exp2(s)", "p / tl.sum(p, 1)[:, None] + tl.trans(s)"),
    "p is made from the turned product": ("p = tl.exp2(tl.trans(s))", "p / tl.sum(p, 1)[:, None]"),
    "p is read before its sum": ("p = tl.exp2(s); p = p * tl.max(p, 1)[:, None]", "p / tl.sum(p, 1)[:, None]"),
    "two tensors are made from the product": ("p = tl.exp2(s); r = tl.exp2(-s)", "p * tl.sum(r, 1)[:, None] + r"),
    "p is the operand of another product": ("p = tl.exp2(s)", "tl.dot(p, x) / tl.sum(p, 1)[:, None] + p"),
}


def sums(x, axis):
    return x.sum(axis, keepdims=True)


EXPECTED = {
    "softmax: p is summed, then used": lambda s, x: np.exp2(s) / sums(np.exp2(s), 1),
    "summed down the columns": lambda s, x: np.exp2(s) / sums(np.exp2(s), 0),
    "the product is read again behind p": lambda s, x: np.exp2(s) / sums(np.exp2(s), 1) + s,
    "the product is read across": lambda s, x: np.exp2(s) / sums(np.exp2(s), 1) + s.T,
    "p is made from the turned product": lambda s, x: np.exp2(s.T) / sums(np.exp2(s.T), 1),
    "p is read before its sum": lambda s, x: np.exp2(s) / sums(np.exp2(s), 1),
    "two tensors are made from the product": lambda s, x: np.exp2(s) * sums(np.exp2(-s), 1) + np.exp2(-s),
    "p is the operand of another product": lambda s, x: np.exp2(s) @ x / sums(np.exp2(s), 1) + np.exp2(s),
}


@pytest.mark.parametrize("name", BODIES)
def test_shared_memory_changes_no_result(define, name):
    lines, result = BODIES[name]
    kernel = define(f"""
    @triton.jit
    def kernel(a, out, turns, N: tl.constexpr):
        place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
        x = tl.load(a + place)
        total = tl.zeros([N, N], tl.float32)
        for turn in range(0, turns):
            s = tl.dot(x, x, input_precision="ieee") * 0.1
            {lines}
            total += {result.replace("tl.dot(p, x)", 'tl.dot(p, x, input_precision="ieee")')}
        tl.store(out + place, total)
    """).kernel
    x = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    out = np.zeros_like(x)
    kernel[(1,)](x, out, 2, N=32)
    wide = x.astype(float)
    np.testing.assert_allclose(out, 2 * EXPECTED[name](0.1 * wide @ wide, wide), rtol=1e-4, atol=1e-4)


def test_prefill_writes_its_weights_over_its_scores_while_it_sums_them():
    plan = make_plan(parse(prebuilt.read(known.prefill("fp32", 64, True))))
    assert len(plan.written_by) == len(plan.over) == 2  # the keys that all rows see, and those that are masked
    assert set(plan.over) == set(plan.written_by.values())
    assert {product.operation.name for product in plan.over.values()} == {"tt.dot"}


def test_a_pair_of_tiles_packs_keys_and_values_once():
    text = prebuilt.read(known.prefill("fp32", 64, True, pair=True))
    plan = make_plan(parse(text))
    shared = [value.operation.name for value in plan.packed_once]
    assert sorted(shared) == ["tt.load", "tt.trans"]
    assert not plan.packed_once & plan.kept


def test_packing_asks_for_the_keys_of_the_next_turn():
    ir, _ = lower_ttir(prebuilt.read(known.prefill("fp32", 64, True)), make_target("portable"))
    asked = [line for line in ir.splitlines() if "call void @llvm.prefetch" in line]
    assert asked and all("i32 2" in line for line in asked), "into the second cache"


def test_addresses_that_are_loaded_are_not_asked_for_ahead(define):
    """The next turn may be one that never comes: its index lies behind the table then."""
    kernel = define("""
    @triton.jit
    def kernel(a, table, out, turns, N: tl.constexpr):
        x = tl.load(a + tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :])
        total = tl.zeros([N, N], tl.float32)
        for start in range(0, turns * N, N):
            rows = tl.broadcast_to(tl.arange(0, N)[:, None], N, N)
            w = tl.load(a + tl.load(table + (start + rows)) * N + tl.arange(0, N)[None, :])
            total += tl.dot(x, w)
        tl.store(out + tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :], total)
    """).kernel
    a = np.random.default_rng(0).integers(-3, 4, (32, 32)).astype(np.float32)
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    table = np.frombuffer(memory, np.int32, 64, mmap.PAGESIZE - 256).reshape(2, 32)
    table[:] = np.random.default_rng(1).integers(0, 32, table.shape)
    LIBC.mprotect(ctypes.c_void_p(table.ctypes.data + table.nbytes), mmap.PAGESIZE, 0)
    out = np.zeros_like(a)
    kernel[(1,)](a, table, out, 2, N=32)
    expected = sum(a @ a[each] for each in table)
    np.testing.assert_array_equal(out, expected)


TWICE = {
    "one operand": "tl.dot(x, w) + tl.dot(y, w)",
    "turned": "tl.dot(x, tl.trans(w)) + tl.dot(y, tl.trans(w))",
    "an expression": "tl.dot(x, w * 2) + tl.dot(y, w * 2)",
    "also a left operand": "tl.dot(x, w) + tl.dot(w, w)",
    "read besides": "tl.dot(x, w) + tl.dot(y, w) + w",
    "one after the other": "tl.dot(tl.dot(x, w).to(w.dtype), w)",
    "left operands that lie otherwise": "tl.dot(x, w) + tl.dot(tl.trans(y), w)",
    "written in between": "tl.dot(x, w) + tl.dot(z, w)",
}

PRODUCTS = {
    "one operand": lambda x, y, w: x @ w + y @ w,
    "turned": lambda x, y, w: x @ w.T + y @ w.T,
    "an expression": lambda x, y, w: 2 * (x @ w + y @ w),
    "also a left operand": lambda x, y, w: x @ w + w @ w,
    "read besides": lambda x, y, w: x @ w + y @ w + w,
    "one after the other": lambda x, y, w: x @ w @ w,
    "left operands that lie otherwise": lambda x, y, w: x @ w + y.T @ w,
    "written in between": lambda x, y, w: x @ w + y.T @ w,
}


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TWICE)
def test_products_that_share_an_operand(define, name, dtype, size):
    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define(f"""
    @triton.jit
    def kernel(a, b, c, out, turns, N: tl.constexpr):
        place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
        total = tl.zeros([N, N], tl.float32)
        for turn in range(0, turns):
            there = turn * N * N + place
            x, y, w = tl.load(a + place), tl.load(b + there), tl.load(c + there)
            z = tl.trans(y)
            if {name == "written in between"}:
                first = tl.dot(x, w)
                tl.store(c + there, tl.zeros([N, N], c.dtype.element_ty))
                total += first + tl.dot(z, w)
            else:
                total += {TWICE[name]}
        tl.store(out + place, total)
    """).kernel
    rng = np.random.default_rng(5)
    shapes = (size, size), (2, size, size), (2, size, size)
    whole = [rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes]
    inputs = whole
    if dtype == "bfloat16":  # small integers are exact in it
        inputs = [Tensor((part.view(np.uint32) >> 16).astype(np.uint16), dtype) for part in whole]
    expected = sum(PRODUCTS[name](whole[0], *pair) for pair in zip(*whole[1:], strict=True))
    out = np.zeros((size, size), np.float32)
    kernel[(1,)](*[part.copy() if dtype == "float32" else part for part in inputs], out, 2, N=size)
    if dtype == "float32" or name != "one after the other":
        np.testing.assert_array_equal(out, expected)
    else:
        np.testing.assert_allclose(out, expected, rtol=1e-2, atol=9 * size / 8)
