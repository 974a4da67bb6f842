"""8-bit floats and roundings that LLVM lacks, against their definition in Python."""

import numpy as np
import pytest

from streaming_attention.triton.cpu.floats import FORMATS, encode
from streaming_attention.triton.cpu.ir import UnsupportedOperation

NAMES = {"f8E5M2": "fp8e5", "f8E4M3FN": "fp8e4nv", "f8E4M3FNUZ": "fp8e4b8", "f8E5M2FNUZ": "fp8e5b16"}
TORCH = {
    "f8E5M2": "float8_e5m2", "f8E4M3FN": "float8_e4m3fn",
    "f8E4M3FNUZ": "float8_e4m3fnuz", "f8E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
CODES = np.arange(256, dtype=np.uint8)


def values_of(element):
    """What each of the 256 codes means, by the format's definition."""
    form = FORMATS[element]
    values = np.array([form.decode(code & 0x7F) for code in range(256)])
    values[128:] *= -1
    magnitudes = CODES & 0x7F
    finite = magnitudes <= form.largest
    infinite = form.has_infinity & (magnitudes == form.largest + 1)
    values[~finite] = np.nan
    values[infinite] = np.where(CODES[infinite] < 128, np.inf, -np.inf)
    if not form.has_negative_zero:
        values[0x80] = np.nan
    return values


@pytest.fixture(scope="module")
def convert(define):
    kernel = define("""
    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        place = tl.arange(0, N)
        tl.store(out + place, tl.load(a + place).to(out.dtype.element_ty))
    """).kernel

    def call(array, source, out, target):
        from streaming_attention.triton.plugin.arrays import Tensor

        kernel[(1,)](Tensor(array, source), Tensor(out, target), N=array.size)
        return out

    return call


@pytest.mark.parametrize("target", ["float32", "float16", "float64"])
@pytest.mark.parametrize("element", FORMATS)
def test_every_code_becomes_its_value(convert, element, target):
    out = convert(CODES, TORCH[element], np.zeros(256, target), target)
    np.testing.assert_array_equal(out, values_of(element).astype(target))


@pytest.mark.parametrize("source", ["float32", "float16", "float64"])
@pytest.mark.parametrize("element", FORMATS)
def test_values_go_to_the_nearest_code_and_saturate(convert, element, source):
    form = FORMATS[element]
    rng = np.random.default_rng(0)
    values = np.array([form.decode(code) for code in range(form.largest + 1)])
    middles = (values[1:] + values[:-1]) / 2  # ties
    wide = np.exp2(rng.uniform(-form.bias - 4, form.bias + 2, 500)).clip(max=6e4)
    x = np.concatenate([values, middles, wide, [np.inf, np.nan, 0.0]])
    x = np.concatenate([x, -x, np.zeros(2048 - 2 * x.size)]).astype(source)
    out = convert(x, source, np.zeros(x.size, np.uint8), TORCH[element])
    np.testing.assert_array_equal(
        np.where(np.isnan(x), form.nan, out), [encode(element, float(value)) for value in x.astype(float)]
    )


@pytest.mark.parametrize("element", FORMATS)
def test_product_of_small_floats(define, element):
    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define("""
    @triton.jit
    def kernel(a, b, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
        i, j, l = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
        x = tl.load(a + i[:, None] * K + l[None, :], mask=l[None, :] < K - 1, other=0.0)
        tl.store(c + i[:, None] * N + j[None, :], tl.dot(x, tl.load(b + l[:, None] * N + j[None, :])))
    """).kernel
    rng = np.random.default_rng(1)
    a, b = rng.integers(20, 60, (32, 64)).astype(np.uint8), rng.integers(20, 60, (64, 32)).astype(np.uint8)
    c = np.zeros((32, 32), np.float32)
    kernel[(1,)](Tensor(a, TORCH[element]), Tensor(b, TORCH[element]), c, M=32, N=32, K=64)
    values = values_of(element)
    np.testing.assert_allclose(c, values[a][:, :-1] @ values[b][:-1], rtol=1e-5)


FOUR_BITS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
FOUR_BITS = np.concatenate([FOUR_BITS, -FOUR_BITS])


def unpack(bits, form, axis):
    """Operands of a scaled product as numbers; two 4-bit ones lie in a byte, the first in the lower half."""
    if form == "e2m1":
        both = np.stack([FOUR_BITS[bits & 15], FOUR_BITS[bits >> 4]], axis + 1)
        return both.reshape(*(extent * (1 + (place == axis)) for place, extent in enumerate(bits.shape)))
    return (
        values_of({"e4m3": "f8E4M3FN", "e5m2": "f8E5M2"}[form])[bits]
        if form in ("e4m3", "e5m2")
        else bits.astype(float)
    )


@pytest.mark.parametrize("left, right", [("e4m3", "e5m2"), ("e2m1", "e4m3"), ("e5m2", "e2m1"), ("e2m1", "fp16")])
@pytest.mark.parametrize("m, n, k", [(32, 32, 64), (4, 64, 32)])
def test_product_of_scaled_blocks(define, left, right, m, n, k):
    kernel = define("""
    @triton.jit
    def kernel(a, sa, b, sb, c, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, LEFT: tl.constexpr,
               RIGHT: tl.constexpr, PACK_A: tl.constexpr, PACK_B: tl.constexpr):
        i, j, s = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :], tl.arange(0, K // 32)[None, :]
        x = tl.load(a + i * (K // PACK_A) + tl.arange(0, K // PACK_A)[None, :])
        y = tl.load(b + tl.arange(0, K // PACK_B)[:, None] * N + j)
        scale_x = tl.load(sa + i * (K // 32) + s)
        if RIGHT == "fp16":
            scale_y = None
        else:
            scale_y = tl.load(sb + tl.arange(0, N)[:, None] * (K // 32) + s)
        start = tl.load(c + i * N + j)
        tl.store(c + i * N + j, tl.dot_scaled(x, scale_x, LEFT, y, scale_y, RIGHT, acc=start))
    """).kernel
    rng = np.random.default_rng(3)
    pack = {form: 2 if form == "e2m1" else 1 for form in (left, right)}
    a = rng.integers(0, 0x70, (m, k // pack[left])).astype(np.uint8)
    b = rng.integers(0, 0x70, (k // pack[right], n)).astype(np.uint8)
    b = rng.normal(size=b.shape).astype(np.float16) if right == "fp16" else b
    scale_a, scale_b = (rng.integers(120, 130, (rows, k // 32)).astype(np.uint8) for rows in (m, n))
    start = rng.normal(size=(m, n)).astype(np.float32)
    c = start.copy()
    kernel[(1,)](
        a, scale_a, b, scale_b, c, M=m, N=n, K=k, LEFT=left, RIGHT=right, PACK_A=pack[left], PACK_B=pack[right]
    )
    x = unpack(a, left, 1) * np.exp2(scale_a.astype(float) - 127).repeat(32, 1)
    y = unpack(b, right, 0)
    y = y if right == "fp16" else y * np.exp2(scale_b.astype(float) - 127).repeat(32, 1).T
    np.testing.assert_allclose(c, start + x @ y, rtol=1e-5, atol=1e-5 * np.abs(x @ y).max())


def test_magnitudes_constants_and_choices_of_small_floats(define):
    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define("""
    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        place = tl.arange(0, N)
        x = tl.abs(tl.load(a + place))
        tl.store(out + place, tl.where(place < 200, x, tl.full([N], -1.5, x.dtype)))
    """).kernel
    out = np.zeros(256, np.uint8)
    kernel[(1,)](Tensor(CODES, "float8_e4m3fn"), Tensor(out, "float8_e4m3fn"), N=256)
    np.testing.assert_array_equal(out, np.where(CODES < 200, CODES & 0x7F, encode("f8E4M3FN", -1.5)))


@pytest.mark.parametrize("source, target, bits, cut", [
    ("float32", "bfloat16", np.uint32, 16), ("float64", "float32", np.uint64, 29), ("float32", "float16", None, None),
    ("float64", "float16", None, None),
])  # fmt: skip
def test_rounding_toward_zero(define, source, target, bits, cut):
    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define("""
    @triton.jit
    def kernel(a, out, N: tl.constexpr):
        place = tl.arange(0, N)
        tl.store(out + place, tl.load(a + place).to(out.dtype.element_ty, fp_downcast_rounding="rtz"))
    """).kernel
    rng = np.random.default_rng(2)
    x = (rng.normal(size=512) * np.exp2(rng.uniform(-16, 15, 512))).astype(source)
    out = np.zeros(512, {"bfloat16": np.uint16}.get(target, target))
    kernel[(1,)](x, Tensor(out, target), N=512)
    if bits is not None:
        exact = ((x.view(bits) >> bits(cut)) << bits(cut)).view(x.dtype)
        out = (out.astype(np.uint32) << 16).view(np.float32) if target == "bfloat16" else out
        np.testing.assert_array_equal(out.astype(source), exact)
    else:
        back = out.astype(float)
        assert (np.abs(back) <= np.abs(x)).all()
        following = np.nextafter(np.abs(out), np.float16(np.inf)).astype(float)
        assert (following > np.abs(x)).all()


def test_arithmetic_of_small_floats_is_refused_by_name(define):
    from streaming_attention.triton.plugin.arrays import Tensor

    kernel = define("""
    @triton.jit
    def kernel(a, N: tl.constexpr):
        place = a + tl.arange(0, N)
        tl.store(place, tl.sqrt(tl.load(place)))
    """).kernel
    with pytest.raises((UnsupportedOperation, Exception), match=r"f(loat|p)?8"):
        kernel[(1,)](Tensor(CODES.copy(), "float8_e5m2"), N=256)
