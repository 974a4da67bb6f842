"""The sampler is driven by a clock that only the methods under test advance, so that no test depends on a machine."""

import itertools

import numpy as np
import pytest

from streaming_attention.campaign.protocol import (
    FEWEST_SAMPLES,
    PATIENCE_SECONDS,
    QUIET_SECONDS,
    Protocol,
    Sampler,
    wait_until_quiet,
)
from streaming_attention.distributed.team import Team


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Job:
    """A method that takes as long as told, one duration a call, and notes its calls in a common diary."""

    def __init__(self, clock, name, durations, diary):
        self.clock, self.name, self.diary = clock, name, diary
        self.durations = iter(durations)

    def __call__(self):
        self.clock.now += next(self.durations)
        self.diary.append(self.name)


def constant(value):
    while True:
        yield value


def noisy(mean, seed=1):
    rng = np.random.default_rng(seed)
    while True:
        yield mean * rng.lognormal(0.0, 0.8)


def sampler(clock, **protocol):
    return Sampler(Protocol(**protocol), Team(), clock=clock)


def test_methods_take_turns_and_stop_once_converged():
    clock, diary = Clock(), []
    jobs = {name: [("compute", Job(clock, name, constant(0.1), diary))] for name in "ABC"}
    timings = sampler(clock, warmup=2, min_samples=5).run(jobs)
    assert "".join(diary) == "AABBCC" + "ABC" * 5
    assert all(timing.converged and len(timing.samples) == 5 for timing in timings.values())
    assert timings["A"].samples == pytest.approx([0.1] * 5)


def test_a_noisy_method_is_sampled_until_its_budget_is_spent_and_says_so():
    clock, diary = Clock(), []
    jobs = {"noisy": [("compute", Job(clock, "noisy", noisy(0.05), diary))]}
    timing = sampler(clock, max_seconds=2.0, relative_half_width=0.001).run(jobs)["noisy"]
    assert not timing.converged
    assert timing.seconds_spent >= 2.0
    assert timing.seconds_spent - timing.samples[-1] < 2.0


def test_a_slow_method_still_gets_the_fewest_samples():
    clock, diary = Clock(), []
    jobs = {"slow": [("compute", Job(clock, "slow", constant(10.0), diary))]}
    timing = sampler(clock, max_seconds=1.0).run(jobs)["slow"]
    assert len(timing.samples) == FEWEST_SAMPLES
    assert not timing.converged


def test_a_short_call_is_repeated_within_a_sample_and_reported_per_call():
    clock, diary = Clock(), []
    jobs = {"short": [("compute", Job(clock, "short", constant(1e-4), diary))]}
    timing = sampler(clock, warmup=1, min_samples=3, min_sample_seconds=1e-3).run(jobs)["short"]
    assert timing.calls_per_sample == 10
    assert timing.samples == pytest.approx([1e-4] * 3)
    assert timing.rehearsed
    assert len(diary) == 1 + 3 * (1 + 10)


def test_stages_are_told_apart_and_add_up():
    clock, diary = Clock(), []
    stages = [
        ("compute", Job(clock, "compute", constant(0.3), diary)),
        ("communication", Job(clock, "communication", constant(0.1), diary)),
    ]
    timing = sampler(clock, min_samples=3).run({"spread": stages})["spread"]
    assert timing.compute == pytest.approx([0.3] * 3)
    assert timing.communication == pytest.approx([0.1] * 3)
    assert timing.samples == pytest.approx([0.4] * 3)
    assert len(timing.starts) == 3
    assert timing.starts == sorted(timing.starts)


def test_a_cold_protocol_evicts_before_every_sample_of_one_call():
    clock, diary = Clock(), []
    jobs = {"A": [("compute", Job(clock, "A", constant(1e-5), diary))]}
    cold = Sampler(Protocol(warmup=1, min_samples=4, cache="cold"), Team(), lambda: diary.append("evict"), clock)
    cold.run(jobs)
    assert diary == ["A"] + ["evict", "A"] * 4


def test_a_fast_method_goes_on_beside_a_noisy_one_so_that_their_ratio_is_interleaved():
    clock, diary = Clock(), []
    jobs = {
        "steady": [("compute", Job(clock, "steady", constant(0.01), diary))],
        "noisy": [("compute", Job(clock, "noisy", noisy(0.01), diary))],
    }
    timings = sampler(clock, warmup=1, max_seconds=1.0).run(jobs)
    assert timings["steady"].converged
    assert len(timings["steady"].samples) == len(timings["noisy"].samples)


def test_a_turn_begins_when_other_threads_are_quiet_and_its_untimed_call_leaves_no_trace():
    clock, diary = Clock(), []
    jobs = {"A": [("compute", Job(clock, "A", itertools.cycle([0.03, 0.01]), diary))]}
    protocol = Protocol(warmup=1, min_samples=4, max_seconds=0.3)
    timing = Sampler(protocol, Team(), clock=clock, settle=lambda: diary.append("settle")).run(jobs)["A"]
    assert diary == ["A"] + ["settle", "A", "A"] * len(timing.samples)
    assert timing.seconds_spent == pytest.approx(0.04 * len(timing.samples))
    assert timing.samples[0] == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("spinning", "waited"),
    [(0.0, QUIET_SECONDS), (20 * QUIET_SECONDS, 21 * QUIET_SECONDS), (1.0, PATIENCE_SECONDS)],
)
def test_quiet_means_that_no_other_thread_uses_a_cpu(spinning, waited):
    clock = Clock()

    def sleep(seconds):
        clock.now += seconds

    wait_until_quiet(clock, used=lambda: min(clock.now, spinning), sleep=sleep)
    assert clock.now == pytest.approx(waited, abs=1.01 * QUIET_SECONDS)


def test_keys_that_only_the_plan_needs_are_left_out_of_the_protocol():
    assert Protocol.from_dict({"warmup": 3, "repeats": 2}).warmup == 3
