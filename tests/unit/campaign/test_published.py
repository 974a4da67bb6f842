"""The published numbers, as data of the project."""

import pytest

from streaming_attention.campaign import published
from streaming_attention.registry import METHODS


def test_all_lines_are_there_and_each_has_its_number():
    times, rates = published.load_times(), published.load_bandwidth()
    assert len(times) == 32 and len(rates) == 32
    assert len(published.PATH.read_text().splitlines()) == 1 + 32 + 32
    for row in (*times.itertuples(), *rates.itertuples()):
        number = row.seconds if hasattr(row, "seconds") else row.rate
        assert published.lookup(row.id) == number


def test_times_are_seconds_of_methods_that_the_registry_knows():
    times = published.load_times()
    assert set(times["method"]) <= set(METHODS)
    serial = times[times["variant"] == "naive_serial"].iloc[0]
    assert (serial["seconds"], serial["keys"], serial["threads"]) == (pytest.approx(8.59e-3), 65536, 1)


def test_a_line_that_does_not_exist_is_named():
    with pytest.raises(KeyError, match="published:999"):
        published.lookup("published:999")


def test_a_caller_can_not_change_the_data():
    mine = published.load_times()
    mine["seconds"] *= 2
    assert published.load_times()["seconds"].iloc[0] == pytest.approx(8.59e-3)
