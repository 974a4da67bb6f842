"""How methods are timed: warm-up, interleaved samples, and when there are enough of them.

One clock for every method: a sample starts when all ranks have arrived and lasts as long as its slowest rank. No
method pays for the one before it: its turn starts when the others' threads have stopped spinning, and a short call
is made once untimed first, which wakes the method's own threads and fills the caches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields

from streaming_attention.campaign.statistics import median_interval
from streaming_attention.distributed.team import Team

QUIET_SECONDS, PATIENCE_SECONDS = 0.0005, 0.1
"""How often to look whether threads still spin, and how long to wait for them at most."""
SHORT_SECONDS = 0.05
"""Calls shorter than this are made once untimed at the start of a turn; waking threads takes 0.1 to 0.3 ms."""
FEWEST_SAMPLES = 3
"""Fewer samples than this give no interval: a method that can't deliver them within its budget is timed out."""


@dataclass(frozen=True)
class Protocol:
    """The rules of a measurement; the keys of ``protocol:`` in the config.

    Parameters
    ----------
    warmup : int
        Calls of every method before its first sample.
    min_samples, max_samples : int
        Samples of a method, unless its budget ends before.
    relative_half_width : float
        A method has converged when half its interval's width is at most this share of its median.
    confidence : float
        Coverage of that interval.
    max_seconds : float
        Sampling budget of one method in one point, in seconds.
    min_sample_seconds : float
        Short calls are repeated within a sample until it lasts about this long.
    seed : int
        Seed of inputs and of the bootstrap.
    cache : {"hot", "cold"}
        ``cold`` evicts the caches before every sample, which then holds a single call.
    """

    warmup: int = 2
    min_samples: int = 9
    max_samples: int = 200
    relative_half_width: float = 0.02
    confidence: float = 0.95
    max_seconds: float = 5.0
    min_sample_seconds: float = 0.002
    seed: int = 1
    cache: str = "hot"

    @classmethod
    def from_dict(cls, values: dict) -> Protocol:
        """The protocol of a spec; keys that steer the plan (repeats) and not the timing are left out."""
        names = {entry.name for entry in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

    def as_dict(self) -> dict:
        return asdict(self)


@dataclass
class Timing:
    """What was seen of one method; all lists have the same length.

    ``samples`` are seconds per call, the slowest rank's; ``starts`` seconds since the point's first sample;
    ``compute`` and ``communication`` the slowest rank's share of each. ``rehearsed``: whether every sample comes
    after an untimed call. ``seconds_spent`` is everything the method's turns took.
    """

    samples: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    compute: list[float] = field(default_factory=list)
    communication: list[float] = field(default_factory=list)
    calls_per_sample: int = 1
    rehearsed: bool = False
    seconds_spent: float = 0.0
    converged: bool = False


Stages = Sequence[tuple]
"""Of :class:`streaming_attention.prepared.Stage`, or of pairs of its kind and function."""


def wait_until_quiet(
    clock: Callable[[], float] = time.perf_counter,
    used: Callable[[], float] = time.process_time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once this process's threads use less than a third of a CPU, or after :data:`PATIENCE_SECONDS`.

    The threads of a BLAS or of OpenMP spin for a while after their last call; a method measured meanwhile would share
    its cores with them.

    Parameters
    ----------
    clock, used : callable
        Seconds that have passed, and seconds of CPU time of all threads.
    sleep : callable
    """
    end = clock() + PATIENCE_SECONDS
    while clock() < end:
        begin, before = clock(), used()
        sleep(QUIET_SECONDS)
        if used() - before < (clock() - begin) / 3:
            return


class Sampler:
    """Samples several methods in turn, A B C A B C ..., until each has converged or spent its budget.

    Parameters
    ----------
    protocol : Protocol
    team : Team
        Every rank runs the same sampler on the same methods.
    evict : callable, optional
        Empties the caches; called before every sample of a cold protocol.
    clock : callable
        Seconds, monotonic.
    settle : callable
        Waits until this process's other threads are idle; called before every sample.
    """

    def __init__(
        self,
        protocol: Protocol,
        team: Team,
        evict: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        settle: Callable[[], None] = wait_until_quiet,
    ):
        self.protocol, self.team, self.clock, self.settle = protocol, team, clock, settle
        self.evict = evict if protocol.cache == "cold" else None

    def run(self, contenders: dict[str, Stages]) -> dict[str, Timing]:
        """Time every contender; returns its timing by name."""
        timings = {name: self._warm_up(stages) for name, stages in contenders.items()}
        origin = self.clock()
        while self.team.agree(any(self._wants_more(timing) for timing in timings.values())):
            for name, stages in contenders.items():
                if self.team.agree(self._has_budget(timings[name])):
                    self._sample(stages, timings[name], origin)
        for timing in timings.values():
            timing.converged = self._is_narrow(timing.samples)
        return timings

    def _warm_up(self, stages: Stages) -> Timing:
        seconds = [self._once(stages, 1)[0] for _ in range(max(1, self.protocol.warmup))]
        wanted = self.protocol.min_sample_seconds / max(min(seconds), 1e-9)
        calls = 1 if self.evict else max(1, math.ceil(wanted))
        rehearsed = not self.evict and min(seconds) < SHORT_SECONDS
        return Timing(calls_per_sample=self.team.agree(calls), rehearsed=self.team.agree(rehearsed))

    def _sample(self, stages: Stages, timing: Timing, origin: float) -> None:
        begin = self.clock()
        self.settle()
        if self.evict:
            self.evict()
        if timing.rehearsed:
            self._once(stages, 1)
        start = self.clock() - origin
        seconds, compute, communication = self._once(stages, timing.calls_per_sample)
        timing.samples.append(seconds)
        timing.starts.append(max(start, 0.0))
        timing.compute.append(compute)
        timing.communication.append(communication)
        timing.converged = timing.converged or self._has_converged(timing.samples)
        timing.seconds_spent += self.clock() - begin

    def _once(self, stages: Stages, calls: int) -> tuple[float, float, float]:
        """Seconds per call (whole, computing, communicating), each the maximum over the ranks."""
        spent = {"compute": 0.0, "communication": 0.0}
        self.team.barrier()
        begin = self.clock()
        for _ in range(calls):
            before = self.clock()
            for kind, stage, *_ in stages:
                stage()
                after = self.clock()
                spent[kind] += after - before
                before = after
        whole = self.clock() - begin
        slowest = self.team.maximum((whole, spent["compute"], spent["communication"]))
        return tuple(seconds / calls for seconds in slowest)

    def _has_budget(self, timing: Timing) -> bool:
        count = len(timing.samples)
        within = timing.seconds_spent < self.protocol.max_seconds and count < self.protocol.max_samples
        return count < FEWEST_SAMPLES or within

    def _wants_more(self, timing: Timing) -> bool:
        return self._has_budget(timing) and not timing.converged

    def _has_converged(self, samples: list[float]) -> bool:
        """Whether to stop; looked at on every tenth of the count, since it costs a bootstrap."""
        count = len(samples)
        return count % max(1, count // 10) == 0 and self._is_narrow(samples)

    def _is_narrow(self, samples: list[float]) -> bool:
        if len(samples) < self.protocol.min_samples:
            return False
        interval = median_interval(samples, self.protocol.confidence, self.protocol.seed)
        return interval.relative_half_width <= self.protocol.relative_half_width
