"""Memory that one tensor takes over from another, and tensors written by the reduction that reads them."""

import numpy as np
import pytest

from streaming_attention.triton import prebuilt
from streaming_attention.triton import specializations as known
from streaming_attention.triton.cpu.parser import parse
from streaming_attention.triton.cpu.plan import make_plan

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
