"""Kernels that nobody wrote: random expressions, natively and in Triton's interpreter's terms (NumPy)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
M, N = 8, 32
FOLDS = {
    "tl.sum({}, 1)[:, None]": (np.sum, 1),
    "tl.max({}, 0)[None, :]": (np.max, 0),
    "tl.min({}, 1)[:, None]": (np.min, 1),
}
BINARY = {"({} + {})": np.add, "({} - {})": np.subtract, "({} * {})": np.multiply, "tl.maximum({}, {})": np.maximum}
UNARY = {"tl.abs({})": np.abs, "tl.exp2(-tl.abs({}))": lambda x: np.exp2(-np.abs(x)), "(-{})": np.negative,
         "tl.sqrt(tl.abs({}))": lambda x: np.sqrt(np.abs(x)), "tl.trans(tl.trans({}))": lambda x: x,
         "tl.reshape(tl.reshape({}, [N, M]), [M, N])": lambda x: x}  # fmt: skip


def leaves():
    return st.sampled_from(["x", "y", "r[:, None]", "c[None, :]"])


def trees():
    def grow(inner):
        return st.one_of(
            st.tuples(st.sampled_from(sorted(UNARY)), inner),
            st.tuples(st.sampled_from(sorted(BINARY)), inner, inner),
            st.tuples(st.sampled_from(sorted(FOLDS)), inner),
        )

    return st.recursive(leaves(), grow, max_leaves=8)


def source(tree) -> str:
    if isinstance(tree, str):
        return f"tl.broadcast_to({tree}, [M, N])"
    text = tree[0].format(*map(source, tree[1:]))
    return f"tl.broadcast_to({text}, [M, N])" if tree[0] in FOLDS else text


def value(tree, names):
    if isinstance(tree, str):
        return np.broadcast_to(names[tree], (M, N))
    parts = [value(part, names) for part in tree[1:]]
    if tree[0] in FOLDS:
        function, axis = FOLDS[tree[0]]
        return np.broadcast_to(function(parts[0], axis, keepdims=True), (M, N))
    return {**UNARY, **BINARY}[tree[0]](*parts)


COUNT = itertools.count()


@settings(max_examples=25, deadline=None)
@given(tree=trees(), loops=st.integers(0, 2))
def test_random_kernels(define, tree, loops):
    kernel = define(f"""
    # {next(COUNT)}
    @triton.jit
    def kernel(a, b, out, turns, M: tl.constexpr, N: tl.constexpr):
        i, j = tl.arange(0, M), tl.arange(0, N)
        place = i[:, None] * N + j[None, :]
        x, y = tl.load(a + place), tl.load(b + place)
        r, c = tl.load(a + i), tl.load(b + j)
        for turn in range(0, turns):
            z = {source(tree)}
            x, y = y, z * 0.5
        tl.store(out + place, {source(tree)})
    """).kernel
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, M, N)).astype(np.float32)
    out = np.zeros_like(a)
    kernel[(1,)](a, b, out, loops, M=M, N=N)
    names = {
        "x": a.astype(float),
        "y": b.astype(float),
        "r[:, None]": a.ravel()[:M, None],
        "c[None, :]": b.ravel()[None, :N],
    }
    for _ in range(loops):
        z = value(tree, names)
        names["x"], names["y"] = names["y"], z * 0.5
    expected = value(tree, names)
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
