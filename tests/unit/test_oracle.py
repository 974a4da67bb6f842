import math

import numpy as np
import pytest
from problems import draw

from streaming_attention.dtypes import numpy_dtype
from streaming_attention.oracle import errors, judge, oracle, plain


def by_hand(q, k, v, b, h, i, causal, scale):
    """One row of attention with nothing but Python numbers, exactly rounded sums and no trick against overflow."""
    group = q.shape[1] // k.shape[1]
    seen = [j for j in range(k.shape[2]) if not causal or j <= i + k.shape[2] - q.shape[2]]
    logits = [scale * math.fsum(map(lambda x, y: float(x) * float(y), q[b, h, i], k[b, h // group, j])) for j in seen]
    weights = [math.exp(logit) for logit in logits]
    total = math.fsum(weights)
    if not seen:
        return [0.0] * v.shape[3], -math.inf
    columns = ([float(v[b, h // group, j, c]) for j in seen] for c in range(v.shape[3]))
    row = [math.fsum(map(lambda w, x: w * x, weights, column)) / total for column in columns]
    return row, math.log(total)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 2, 5, 9, 4), (1, 2, 1, 9, 5, 3), (1, 3, 3, 1, 7, 8)])
def test_oracle_is_the_definition(shape, causal, scale):
    q, k, v = draw(*shape)
    out, lse = oracle(q, k, v, causal=causal, scale=scale)
    assert out.dtype == lse.dtype == np.float64
    for b, h, i in np.ndindex(q.shape[:3]):
        row, row_lse = by_hand(q, k, v, b, h, i, causal, scale or q.shape[3] ** -0.5)
        np.testing.assert_allclose(out[b, h, i], row, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(lse[b, h, i], row_lse, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("compute", [oracle, plain])
def test_chosen_rows_are_those_of_the_whole(compute):
    q, k, v = draw(1, 2, 1, 20, 30, 8)
    rows = np.array([0, 7, 19])
    for whole, chosen in zip(compute(q, k, v, causal=True), compute(q, k, v, causal=True, rows=rows), strict=True):
        np.testing.assert_array_equal(chosen, whole[:, :, rows])


def test_plain_stays_in_its_precision_and_adds_in_order():
    q, k, v = draw(1, 1, 1, 1, 3000, 4)
    q[:] = 0
    out, lse = plain(q, k, v)
    assert out.dtype == lse.dtype == np.float32
    total = np.float32(0)
    for value in v[0, 0, :, 2]:
        total += value
    assert out[0, 0, 0, 2] == total / np.float32(3000)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_plain_writes_down_in_16_bits_and_computes_in_fp32(dtype):
    kind = numpy_dtype(dtype)
    q, k, v = (x.astype(kind) for x in draw(1, 2, 1, 20, 300, 32))
    out, lse = plain(q, k, v, causal=True)
    assert (out.dtype, lse.dtype) == (kind, np.float32)
    wide = [x.astype(np.float32) for x in (q, k, v)]
    reference, _ = oracle(q, k, v, causal=True)
    np.testing.assert_array_equal(reference, oracle(*wide, causal=True)[0])
    rounding = errors(reference.astype(kind), reference).relative_l2
    assert rounding < errors(out, reference).relative_l2 < 5 * rounding
    assert errors(plain(*wide, causal=True)[0], reference).relative_l2 < rounding / 100


def test_errors_of_a_known_difference():
    reference = np.array([3.0, 4.0])
    assert errors(np.array([3.0, 4.5]), reference) == (0.1, 0.5)
    assert errors(np.array([0.25]), np.zeros(1)) == (0.25, 0.25)
    assert errors(np.zeros(0), np.zeros(0)) == (0.0, 0.0)


@pytest.fixture
def judged():
    q, k, v = draw(1, 2, 1, 30, 200, 32)
    return oracle(q, k, v)[0], plain(q, k, v)[0]


def test_the_textbook_passes_its_own_judgement(judged):
    reference, textbook = judged
    verdict = judge(textbook, reference, textbook)
    assert verdict.passed
    assert verdict.relative_l2 == verdict.plain_relative_l2 > 0
    assert verdict.max_abs < verdict.limit_max_abs


@pytest.mark.parametrize("factor, passes", [(1.9, True), (4.0, False)])
def test_an_error_may_be_twice_the_textbooks(judged, factor, passes):
    reference, textbook = judged
    out = (reference + factor * (textbook - reference)).astype(np.float32)
    assert judge(out, reference, textbook).passed is passes


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(judged, value):
    reference, textbook = judged
    out = textbook.copy()
    out[0, 0, 0, 0] = value
    assert not judge(out, reference, textbook).passed
    assert not judge(out, np.where(np.isnan(out), np.nan, reference), textbook).passed


def test_one_wrong_row_in_many_does_not_pass(judged):
    reference, textbook = judged
    out = textbook.copy()
    out[0, 1, 29] *= 1.00001
    assert not judge(out, reference, textbook).passed
