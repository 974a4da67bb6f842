"""What a probe of the network makes of seconds; the exchanges themselves are tests/mpi's."""

import pytest

from streaming_attention.bandwidth.network import LONG, PROBES, SHORT, Probe


def test_short_messages_are_times_and_long_ones_rates():
    assert Probe("shift", SHORT).value(3e-6, ranks=4) == pytest.approx(3.0)
    assert Probe("shift", LONG).value(1e-3, ranks=4) == pytest.approx(LONG / 1e6)


def test_seconds_of_a_call_are_shared_out_over_its_messages():
    assert Probe("ping_pong", SHORT).value(3e-6, ranks=4) == pytest.approx(1.5)
    assert Probe("allgather", SHORT).value(3e-6, ranks=4) == pytest.approx(1.0)
    assert Probe("allgather", LONG).value(3e-3, ranks=4) == pytest.approx(LONG / 1e6)


def test_names_tell_pattern_and_size():
    names = [probe.name for probe in PROBES]
    assert len(set(names)) == len(names)
    assert {"ping_pong_1KiB", "shift_4MiB", "allreduce_4MiB", "allgather_1KiB"} <= set(names)
