import numpy as np
import pytest

from streaming_attention.bandwidth import peak


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", peak.available_peaks())
def test_every_sum_of_every_thread_is_exact(name, threads):
    ceiling = peak.prepare_peak(name, threads, rounds=1001)
    assert not ceiling.error() <= ceiling.tolerance  # nothing computed yet: NaN
    for _ in range(2):
        ceiling()
        assert ceiling.error() == 0
    ceiling.close()


def test_any_other_sum_is_an_error(monkeypatch):
    ceiling = peak.prepare_peak("fma_fp32", 1, rounds=1000)
    ceiling()
    monkeypatch.setattr(peak, "FACTOR", np.nextafter(peak.FACTOR, 1))
    assert ceiling.error() > ceiling.tolerance


def test_flops_count_both_operations_of_every_lane():
    per_round = peak.flops_per_call("fma_fp32", 1, rounds=1)
    assert per_round % 2 == 0
    assert peak.flops_per_call("fma_fp32", 3, rounds=10) == 30 * per_round


@pytest.mark.parametrize(
    "name, rounds, message", [("fma_fp32", 0, "rounds: 0"), ("fma", 1, "name: 'fma' is not one of")]
)
def test_errors_name_the_argument(name, rounds, message):
    with pytest.raises(ValueError, match=message):
        peak.prepare_peak(name, 1, rounds)
