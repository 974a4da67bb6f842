import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention.campaign import statistics

seconds = st.floats(1e-6, 1e3)


@given(st.lists(seconds, min_size=2, max_size=40))
def test_the_interval_holds_the_median_and_stays_within_the_samples(samples):
    median, low, high = statistics.median_interval(samples)
    assert min(samples) <= low <= median * (1 + 1e-12)
    assert median * (1 - 1e-12) <= high <= max(samples)
    assert median == np.median(samples)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        _, low, high = statistics.median_interval(rng.exponential(size=25), confidence=0.9)
        hits += low <= np.log(2) <= high
    assert 0.83 < hits / 300 < 0.96


def test_one_sample_has_an_unknown_interval():
    assert statistics.median_interval([2.0]) == (2.0, 0.0, float("inf"))


@pytest.mark.parametrize("samples", [[], [[1.0, 2.0]]])
def test_no_samples_is_an_error_that_names_the_argument(samples):
    with pytest.raises(ValueError, match="samples: at least one"):
        statistics.median_interval(samples)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 2.0])
def test_confidence_outside_its_range(confidence):
    with pytest.raises(ValueError, match="confidence"):
        statistics.median_interval([1.0, 2.0], confidence)


@given(st.lists(seconds, min_size=3, max_size=30), st.floats(0.1, 10))
def test_scaling_the_samples_scales_the_interval(samples, factor):
    plain = np.array(statistics.median_interval(samples))
    scaled = np.array(statistics.median_interval([factor * value for value in samples]))
    np.testing.assert_allclose(scaled, factor * plain, rtol=1e-9)


def test_outliers_are_found_and_all_samples_stay():
    samples = [1.0, 1.01, 0.99, 1.02, 0.98, 5.0]
    assert statistics.outliers(samples).tolist() == [False] * 5 + [True]
    assert not statistics.outliers([1.0, 9.0]).any()
    assert statistics.outliers([1.0, 1.0, 1.0, 2.0]).tolist() == [False, False, False, True]


def test_repeats_that_differ_widen_the_pooled_interval():
    rng = np.random.default_rng(3)
    first, second = rng.normal(1.0, 0.01, 50), rng.normal(2.0, 0.01, 50)
    pooled = statistics.pooled_interval([first, second])
    assert pooled.low < 1.1
    assert pooled.high > 1.9
    assert statistics.pooled_interval([first]) == statistics.median_interval(first)


@given(st.lists(seconds, min_size=3, max_size=20), st.lists(seconds, min_size=3, max_size=20))
def test_a_ratio_is_the_inverse_of_the_other_way_round(above, below):
    ratio = statistics.ratio_interval(above, below).median
    assert ratio * statistics.ratio_interval(below, above).median == pytest.approx(1.0)


def test_a_ratio_over_repeats_is_taken_inside_each_of_them():
    """A machine that halves its speed between repeats changes both sides of each ratio, and none of the ratios."""
    slow_and_fast = [([2.0, 2.02, 1.98], [1.0, 1.01, 0.99]), ([4.0, 4.04, 3.96], [2.0, 2.02, 1.98])]
    inside = statistics.pooled_ratio_interval(slow_and_fast)
    assert inside.median == pytest.approx(2.0)
    assert inside.high - inside.low < 0.2
    between = statistics.ratio_of_pools(*zip(*slow_and_fast, strict=True))
    assert between.high - between.low > 5 * (inside.high - inside.low)


def test_a_ratio_of_pools_is_the_ratio_of_their_medians():
    ratio = statistics.ratio_of_pools([[2.0, 2.0], [4.0, 4.0], [3.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]])
    assert ratio.median == 3.0
    assert ratio.low >= 2.0 and ratio.high <= 4.0


def test_a_ratio_of_single_samples_has_an_unknown_interval():
    assert statistics.pooled_ratio_interval([([3.0], [2.0])]) == (1.5, 0.0, np.inf)
    assert statistics.ratio_of_pools([[3.0]], [[2.0, 2.0]]) == (1.5, 0.0, np.inf)


def test_a_ratio_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one repeat"):
        statistics.pooled_ratio_interval([])
    with pytest.raises(ValueError, match="at least one repeat"):
        statistics.ratio_of_pools([[1.0]], [])
