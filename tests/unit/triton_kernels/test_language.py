"""What kernels of one's own use beyond operations: tuning, heuristics, loop options, descriptors, functions called."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def attend(define):
    """Attention in two stages, the keys that all rows see and those that are masked, its tiles tuned."""
    return define("""
    def fits(configs, arguments, **constants):
        return [config for config in configs if config.kwargs["BM"] <= max(16, constants["T"])]

    @triton.jit
    def describe(pointer, rows, D: tl.constexpr, B: tl.constexpr, BY: tl.constexpr):
        if BY == "descriptor":
            return tl.make_tensor_descriptor(pointer, [rows, D], [D, 1], [B, D])
        else:
            return tl.make_block_ptr(pointer, (rows, D), (D, 1), (0, 0), (B, D), (1, 0))

    @triton.jit
    def block(source, first, BY: tl.constexpr):
        if BY == "descriptor":
            return source.load([first, 0])
        else:
            return tl.load(tl.advance(source, (first, 0)), boundary_check=(0,), padding_option="zero")

    @triton.jit
    def stage(q, k, v, m, l, acc, rows, start, stop, scale, STAGE: tl.constexpr, BY: tl.constexpr, BN: tl.constexpr):
        columns = tl.arange(0, BN)
        for first in tl.range(start, stop, BN, num_stages=3, disallow_acc_multi_buffer=True, warp_specialize=False):
            first = tl.multiple_of(first, BN)
            s = tl.dot(q, block(k, first, BY).T, input_precision="ieee") * scale
            if STAGE == 2:
                s = tl.where(rows[:, None] >= first + columns[None, :], s, -1.0e6)
            m_new = tl.maximum(m, tl.max(s, 1))
            p = tl.math.exp2(s - m_new[:, None])
            alpha = tl.math.exp2(m - m_new)
            l = l * alpha + tl.sum(p, 1)
            acc = tl.dot(p.to(q.dtype), block(v, first, BY), acc * alpha[:, None], input_precision="ieee")
            m = m_new
        return m, l, acc

    @triton.autotune(
        [triton.Config({"BM": 32, "BN": 16}, num_stages=2), triton.Config({"BM": 16, "BN": 16}, num_warps=8),
         triton.Config({"BM": 128, "BN": 64})],
        key=["T"], prune_configs_by={"early_config_prune": fits},
    )
    @triton.heuristics({"WHOLE": lambda arguments: arguments["T"] % arguments["BM"] == 0})
    @triton.jit
    def attend(q, k, v, out, lse, scale, T: tl.constexpr, D: tl.constexpr, STAGES: tl.constexpr, BY: tl.constexpr,
               BM: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr):
        head, start = tl.program_id(1) * T * D, tl.program_id(0) * BM
        rows = start + tl.arange(0, BM)
        m = tl.full([BM], -float("inf"), tl.float32)
        l = tl.zeros([BM], tl.float32)
        acc = tl.zeros([BM, D], tl.float32)
        queries = block(describe(q + head, T, D, BM, BY), start, BY)
        keys, values = describe(k + head, T, D, BN, BY), describe(v + head, T, D, BN, BY)
        scale *= 1.44269504
        if STAGES & 1:
            m, l, acc = stage(queries, keys, values, m, l, acc, rows, 0, start if STAGES & 2 else T, scale, 1, BY, BN)
        if STAGES & 2:
            stop = tl.minimum(start + BM, T)
            m, l, acc = stage(queries, keys, values, m, l, acc, rows, start, stop, scale, 2, BY, BN)
        acc = (acc / l[:, None]).to(out.dtype.element_ty)
        if BY == "descriptor":
            describe(out + head, T, D, BM, BY).store([start, 0], acc)
        else:
            tl.store(tl.advance(describe(out + head, T, D, BM, BY), (start, 0)), acc, boundary_check=(0,))
        last = m + tl.math.log2(l)
        if WHOLE:
            tl.store(lse + tl.program_id(1) * T + rows, last)
        else:
            tl.store(lse + tl.program_id(1) * T + rows, last, mask=rows < T)
    """).attend


@pytest.mark.parametrize("dtype, tolerance", [("float32", 3e-6), ("float16", 3e-3)])
@pytest.mark.parametrize("by", ["descriptor", "block pointer"])
@pytest.mark.parametrize("tokens, causal", [(64, False), (64, True), (80, True)])
def test_attention_that_is_tuned(attend, tokens, causal, by, dtype, tolerance):
    import triton

    if by == "block pointer" and tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9):
        pytest.skip("Triton has no block pointers from 3.9 on")
    heads, dim = 3, 32
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, heads, tokens, dim)).astype(dtype)
    out, lse = np.zeros_like(q), np.zeros((heads, tokens), np.float32)

    def grid(chosen):
        return triton.cdiv(tokens, chosen["BM"]), heads

    attend[grid](q, k, v, out, lse, dim**-0.5, T=tokens, D=dim, STAGES=3 if causal else 1, BY=by)
    scores = q.astype(float) @ k.astype(float).swapaxes(-1, -2) * dim**-0.5
    if causal:
        scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1)
    np.testing.assert_allclose(out, weights @ v / total[..., None], atol=tolerance)
    np.testing.assert_allclose(lse, (scores.max(-1) + np.log(total)) / np.log(2), atol=tolerance)
    assert attend.best_config.kwargs["BM"] in (16, 32)


@pytest.mark.parametrize("columns", [781, 64])
def test_softmax_by_few_programs_that_stay(define, columns):
    import triton
    from triton.runtime import driver

    kernel = define("""
    @triton.jit
    def softmax(out, x, stride, n, columns, BLOCK: tl.constexpr, STAGES: tl.constexpr):
        place = tl.arange(0, BLOCK)
        for row in tl.range(tl.program_id(0), n, tl.num_programs(0), num_stages=STAGES, flatten=True):
            values = tl.load(x + row * stride + place, mask=place < columns, other=-float("inf"))
            weights = tl.exp(values - tl.max(values, axis=0))
            tl.store(out + row * stride + place, weights / tl.sum(weights, axis=0), mask=place < columns)
    """).softmax
    x = np.random.default_rng(0).normal(0, 5, (100, columns)).astype(np.float32)
    out, block = np.zeros_like(x), triton.next_power_of_2(columns)
    compiled = kernel.warmup(out, x, columns, 100, columns, BLOCK=block, STAGES=4, num_warps=8, grid=(1,))
    compiled._init_handles()
    machine = driver.active.utils.get_device_properties(0)
    resident = machine["max_num_regs"] // (compiled.n_regs * machine["warpSize"] * 8)
    resident = min(resident, machine["max_shared_mem"] // compiled.metadata.shared)
    programs = min(100, machine["multiprocessor_count"] * resident)
    compiled[(programs, 1, 1)](out, x, columns, 100, columns, block, 4)
    weights = np.exp(x.astype(float) - x.max(1, keepdims=True))
    np.testing.assert_allclose(out, weights / weights.sum(1, keepdims=True), rtol=3e-6, atol=1e-7)


def test_functions_that_are_not_to_be_inlined_run(define):
    kernel = define("""
    @triton.jit(noinline=True)
    def double(x):
        return 2 * x

    @triton.jit(noinline=True)
    def both(x, y):
        return double(x) + y, x - double(y)

    @triton.jit(noinline=True)
    def write(out, x, y, N: tl.constexpr):
        tl.store(out + tl.arange(0, N), tl.full([N], x, tl.float32) * y)

    @triton.jit
    def kernel(out, x, y, N: tl.constexpr):
        x, y = both(x, y)
        for i in range(2):
            if i == 1:
                write(out, x, y, N)
    """).kernel
    out = np.zeros(16, np.float32)
    kernel[(1,)](out, 3.0, 5.0, N=16)
    np.testing.assert_array_equal(out, np.full(16, (2 * 3 + 5) * (3 - 2 * 5)))


def test_functions_that_return_early(define):
    module = define("""
    @triton.jit
    def halved(x, limit):
        if limit > 2:
            return x * 0.5
        return x

    @triton.jit(noinline=True)
    def sign(x):
        if x < 0:
            return -1
        return 1

    @triton.jit
    def kernel(out, limit, N: tl.constexpr):
        x = halved(tl.arange(0, N).to(tl.float32), limit) * sign(limit)
        tl.store(out + tl.arange(0, N), x)

    @triton.jit
    def inside(out, limit, N: tl.constexpr):
        x = tl.arange(0, N).to(tl.float32)
        for i in range(3):
            if limit > i:
                x = halved(x + sign(limit), limit) + sign(i - 2)
        tl.store(out + tl.arange(0, N), x)
    """)
    for limit in (-1, 2, 3):
        out = np.zeros(16, np.float32)
        module.kernel[(1,)](out, limit, N=16)
        np.testing.assert_array_equal(out, np.arange(16) * (0.5 if limit > 2 else 1) * np.sign(limit))
        module.inside[(1,)](out, limit, N=16)
        x = np.arange(16.0)
        for i in range(3):
            if limit > i:
                x = (x + 1) * (0.5 if limit > 2 else 1) + (-1 if i < 2 else 1)
        np.testing.assert_array_equal(out, x)


def test_descriptor_made_by_the_host(define):
    from triton.tools.tensor_descriptor import TensorDescriptor

    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define("""
    @triton.jit
    def kernel(source, target, M: tl.constexpr, N: tl.constexpr):
        row, column = tl.program_id(0) * M, tl.program_id(1) * N
        target.store([column, row], source.load([row, column]).T * 2)
    """).kernel
    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    out = np.zeros((64, 40), np.float32)
    source = TensorDescriptor(Tensor(x), [40, 64], [64, 1], [16, 32])
    kernel[(3, 2)](source, TensorDescriptor(Tensor(out), [64, 40], [40, 1], [32, 16]), M=16, N=32)
    np.testing.assert_array_equal(out, 2 * x.T)


def test_assumptions_and_barriers(define):
    kernel = define("""
    @triton.jit
    def kernel(out, n, N: tl.constexpr):
        tl.assume(n > 3)
        tl.store(out + tl.arange(0, N), n + tl.arange(0, N))
        tl.debug_barrier()
        tl.store(out + tl.arange(0, N), tl.load(out + tl.arange(0, N)) * 2)
    """).kernel
    out = np.zeros(8, np.int32)
    compiled = kernel[(1,)](out, 5, N=8)
    np.testing.assert_array_equal(out, 2 * (5 + np.arange(8)))
    assert "call void @llvm.assume" in compiled.asm["llir"]


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, 2**63 - 1, -(2**63), -1])
def test_integers_of_64_bits_with_and_without_sign(define, value):
    kernel = define("""
    @triton.jit
    def kernel(out, value, VALUE_IS_WIDE: tl.constexpr):
        tl.store(out, value)
    """).kernel
    out = np.zeros(1, np.uint64 if value > 0 else np.int64)
    kernel[(1,)](out, value, VALUE_IS_WIDE=True)
    assert out[0] == value


def test_products_and_sums_are_fused_unless_told_otherwise(define):
    kernel = define("""
    @triton.jit
    def kernel(a, b, c, out, N: tl.constexpr):
        place = tl.arange(0, N)
        tl.store(out + place, tl.load(a + place) * tl.load(b + place) + tl.load(c + place))
    """).kernel
    a = np.random.default_rng(0).normal(size=64).astype(np.float32)
    apart, fused = np.zeros(64, np.float32), np.zeros(64, np.float32)
    kernel[(1,)](a, a, -(a * a), apart, N=64, enable_fp_fusion=False)
    kernel[(1,)](a, a, -(a * a), fused, N=64)
    assert not apart.any()
    assert fused.any()


def test_warps_are_a_power_of_two_as_everywhere(define):
    kernel = define("""
    @triton.jit
    def kernel(out):
        tl.store(out, 1)
    """).kernel
    with pytest.raises(AssertionError, match="num_warps must be a power of 2"):
        kernel[(1,)](np.zeros(1, np.int32), num_warps=3)
