import numpy as np
import pytest

from streaming_attention.merging import merge
from streaming_attention.streaming import state

INF = np.float32(np.inf)


def one_row(peak, total, out):
    return np.full((1, 1), peak, np.float32), np.full((1, 1), total, np.float32), np.array([[out]], np.float32)


def merged(mine, other):
    mine = tuple(array.copy() for array in mine)
    state.merge_into(*mine, *other)
    return mine


def test_merging_takes_both_to_the_larger_peak():
    peak, total, out = merged(one_row(1.0, 2.0, [3.0, 4.0]), one_row(0.0, 1.0, [1.0, 1.0]))
    assert peak == 1.0
    np.testing.assert_allclose(total, 2 + np.exp(-1), rtol=1e-6)
    np.testing.assert_allclose(out[0, 0], [3 + np.exp(-1), 4 + np.exp(-1)], rtol=1e-6)


def test_an_empty_state_changes_nothing():
    some, empty = one_row(5.0, 2.0, [3.0, -4.0]), one_row(-INF, 0.0, [0.0, 0.0])
    for pair in ((some, empty), (empty, some)):
        for found, expected in zip(merged(*pair), some, strict=True):
            np.testing.assert_array_equal(found, expected)
    for found, expected in zip(merged(empty, empty), empty, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_nan_of_either_stays():
    some, broken = one_row(5.0, 2.0, [3.0, 4.0]), one_row(-INF, np.nan, [np.nan, np.nan])
    for pair in ((some, broken), (broken, some)):
        _, total, out = merged(*pair)
        assert np.isnan(total).all()
        assert np.isnan(out).all()


def test_peaks_far_apart_do_not_overflow():
    peak, total, out = merged(one_row(-1e4, 1.0, [7.0]), one_row(1e4, 2.0, [6.0]))
    assert (peak, total, out) == (1e4, 2.0, 6.0)


def test_finishing_divides_and_gives_log_sum_exp():
    out = np.array([3.0, 6.0], np.float32)
    lse = state.finish_row(np.float32(2.0), np.float32(3.0), out)
    np.testing.assert_allclose(out, [1.0, 2.0], rtol=1e-6)
    assert lse == pytest.approx(2 + np.log(3))


def test_finishing_an_empty_state_clears_what_was_there():
    out = np.array([3.0, np.nan], np.float32)
    assert np.isneginf(state.finish_row(-INF, np.float32(0), out))
    assert not out.any()


def test_parts_are_merged_in_order_over_what_was_there():
    rng = np.random.default_rng(0)
    peaks, totals = rng.random((2, 3, 2, 4), dtype=np.float32)
    outs = rng.random((3, 2, 4, 5), dtype=np.float32)
    expected = peaks[0].copy(), totals[0].copy(), outs[0].copy()
    for part in (1, 2):
        state.merge_into(*expected, peaks[part], totals[part], outs[part])
    found = tuple(np.full_like(array, np.nan) for array in expected)
    state.merge_parts(peaks, totals, outs, *found)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_splitting_gives_views_of_the_flat_array():
    flat = np.arange(2 * 3 * (4 + 2), dtype=np.float32)
    peaks, totals, outs = state.split(flat, 2, 3)
    assert peaks.shape == totals.shape == (2, 3)
    assert outs.shape == (2, 3, 4)
    np.testing.assert_array_equal(np.concatenate([part.ravel() for part in (peaks, totals, outs)]), flat)
    assert all(np.shares_memory(part, flat) for part in (peaks, totals, outs))


def finished(lse, out):
    return np.full((1, 1), lse, np.float32), np.array([[out]], np.float32)


def merged_rows(mine, other):
    lse, outs = (array.copy() for array in mine)
    state.merge_finished(0, 1, lse, outs, 0, *other)
    return lse[0, 0], outs[0, 0]


def test_finished_rows_merge_by_their_weights():
    lse, out = merged_rows(finished(np.log(3), [1.0, 0.0]), finished(np.log(1), [5.0, 8.0]))
    np.testing.assert_allclose(lse, np.log(4), rtol=1e-6)
    np.testing.assert_allclose(out, [2.0, 2.0], rtol=1e-6)


def test_a_finished_row_without_a_key_changes_nothing():
    some, empty = finished(2.0, [3.0, -4.0]), finished(-INF, [0.0, 0.0])
    for pair in ((some, empty), (empty, some)):
        lse, out = merged_rows(*pair)
        np.testing.assert_array_equal(lse, 2.0)
        np.testing.assert_array_equal(out, [3.0, -4.0])
    lse, out = merged_rows(empty, empty)
    assert lse == -INF and not out.any()


def test_nan_in_a_finished_row_stays():
    some, broken = finished(2.0, [3.0, 4.0]), finished(np.nan, [np.nan, np.nan])
    for pair in ((some, broken), (broken, some)):
        lse, out = merged_rows(*pair)
        assert np.isnan(lse) and np.isnan(out).all()


def test_finished_rows_are_merged_where_they_belong():
    rng = np.random.default_rng(1)
    lse, other_lse = rng.standard_normal((3, 9)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    outs, others = (rng.standard_normal((*shape, 5)).astype(np.float32) for shape in ((3, 9), (3, 4)))
    expected, _ = merge(outs[:, 2:6], lse[:, 2:6], others, other_lse)
    before = outs.copy()
    for worker in range(2):
        state.merge_finished(worker, 2, lse, outs, 2, other_lse, others)
    np.testing.assert_allclose(outs[:, 2:6], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outs[:, [0, 1, 6, 7, 8]], before[:, [0, 1, 6, 7, 8]])
