"""One method in one point: admitted or refused, compiled, checked against the oracle, and ready to be timed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from streaming_attention import models
from streaming_attention.campaign.accuracy import Examiner
from streaming_attention.campaign.jit import compile_timer
from streaming_attention.campaign.protocol import FEWEST_SAMPLES, Protocol, Timing
from streaming_attention.distributed.team import Team
from streaming_attention.inputs import Inputs, make_inputs, refill
from streaming_attention.machine import affinity, memory, topology
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS, Choice
from streaming_attention.slices import Holding
from streaming_attention.workload import Workload

SCOUT_SECONDS = 0.1
"""A first call predicted to last longer than this is preceded by one on fewer queries, to see what it will cost."""

SLOW_SECONDS = 1.0


class Refused(Exception):
    """A method that will not be timed: its status and the reason."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class Contender:
    """A method's part of the record, filled in as the point goes on."""

    choice: Choice
    status: str = "passed"
    reason: str | None = None
    kernel: str | None = None
    prepared: object = None
    jit_seconds: float | None = None
    error_before: dict | None = None
    error_after: dict | None = None
    memory: dict | None = None
    timeline: list | None = None
    timing: Timing = field(default_factory=Timing)

    @property
    def method(self):
        return METHODS[self.choice.method]

    def refuse(self, status: str, reason: str) -> None:
        """Take the method out of the point; it keeps no timing."""
        self.status, self.reason, self.timing = status, reason, Timing()
        if self.prepared is not None:
            self.prepared.close()
            self.prepared = None


@dataclass
class Ring:
    """What the methods of a point share.

    Methods that hold the same tokens read the same arrays.
    """

    workload: Workload
    layout: Layout
    protocol: Protocol
    team: Team
    rows: np.ndarray
    examiner: Examiner | None
    refused: dict[str, str]
    node_memory: int
    committed_bytes: int = 0
    """Workspaces of the methods that are in: they stay allocated, since the methods are timed in turn."""
    _inputs: dict[Holding, Inputs] = field(default_factory=dict)

    def inputs(self, choice: Choice) -> Inputs:
        """What this rank holds for a method."""
        held = self._holding(choice, self.workload)
        if held not in self._inputs:
            self._inputs[held] = make_inputs(self.workload, self.protocol.seed, held)
        return self._inputs[held]

    def bytes_beside(self, choice: Choice) -> int:
        """What is allocated for methods that hold other tokens."""
        mine = self._holding(choice, self.workload)
        others = [inputs for held, inputs in self._inputs.items() if held != mine]
        return sum(inputs.q.nbytes + inputs.k.nbytes + inputs.v.nbytes for inputs in others)

    def small_inputs(self, choice: Choice, workload: Workload) -> Inputs:
        """The same of another workload, for a single call."""
        return make_inputs(workload, self.protocol.seed, self._holding(choice, workload))

    def refill(self, seed: int) -> None:
        """Draw everything anew, in place."""
        for inputs in self._inputs.values():
            refill(inputs, seed)

    def _holding(self, choice: Choice, workload: Workload) -> Holding:
        return METHODS[choice.method].holding(workload, self.layout, self.team.rank, choice.options)


def enter(contender: Contender, ring: Ring) -> None:
    """Prepare a method, run it once and check it; any refusal ends up in its status, on every rank alike."""
    try:
        _check_admission(contender, ring)
        _compile(contender, ring)
        _scout(contender, ring)
        _prepare(contender, ring)
        examine(contender, ring, "error_before")
    except Refused as refusal:
        contender.refuse(refusal.status, refusal.reason)
    except Exception as error:
        if ring.team.size > 1:  # the other ranks can't know: the whole point fails with this rank's error
            raise
        contender.refuse("error", f"{type(error).__name__}: {error}")


def examine(contender: Contender, ring: Ring, moment: str) -> None:
    """Keep the output's error against the oracle as ``error_before`` or ``error_after``.

    Raises
    ------
    Refused
        The error is beyond the limit.
    """
    found = contender.prepared.rows(ring.rows)
    verdict = ring.team.agree(ring.examiner.judge(found[0]) if ring.team.rank == 0 else None)
    setattr(contender, moment, verdict)
    if not verdict["passed"]:
        raise Refused("incorrect", describe_error(verdict))


def describe_error(verdict: dict) -> str:
    """One line of what was wrong with an output; a number that isn't finite shows as None."""
    return (
        f"relative L2 error {verdict['relative_l2']} (limit {verdict['limit_relative_l2']:.2e}), "
        f"largest error {verdict['max_abs']} (limit {verdict['limit_max_abs']:.2e})"
    )


def _check_admission(contender: Contender, ring: Ring) -> None:
    method, workload = contender.method, ring.workload
    if method.name in ring.refused:
        raise Refused("incorrect", ring.refused[method.name])
    room = ring.node_memory - ring.committed_bytes - ring.layout.ranks_per_node * ring.bytes_beside(contender.choice)
    options = contender.choice.options
    impossible = ring.team.agree(method.infeasible(workload, ring.layout, room, options))
    if impossible:
        raise Refused("infeasible", impossible)
    workspace = method.workspace_bytes(workload, ring.layout, options)
    ring.committed_bytes += ring.layout.ranks_per_node * workspace


def _compile(contender: Contender, ring: Ring) -> None:
    """Compile on a problem so small that the call itself costs nothing."""
    workload = ring.workload
    group = workload.heads // workload.kv_heads
    keys = min(workload.keys, max(64, ring.team.size))
    small = replace(workload, batch=1, heads=group, kv_heads=1, keys=keys, queries=min(workload.queries, keys))
    with compile_timer() as durations:
        _run(contender, ring.small_inputs(contender.choice, small), ring)
    contender.jit_seconds = sum(durations)


def _scout(contender: Contender, ring: Ring) -> None:
    """Refuse a method whose fewest samples would outlast the budget, before a whole call is spent on it."""
    workload, limit = ring.workload, ring.protocol.max_seconds / FEWEST_SAMPLES
    predicted = models.predict_seconds(workload, contender.method, ring.layout)
    fewer = int(workload.queries * SCOUT_SECONDS / max(predicted, 1e-9))
    if fewer >= workload.queries:
        return
    scouted = replace(workload, queries=max(1, fewer))
    seconds = _run(contender, ring.small_inputs(contender.choice, scouted), ring)
    share = models.flops(scouted) / models.flops(workload)
    expected = float(ring.team.agree(seconds / share))
    if expected > limit:
        raise Refused("timeout", f"one call is expected to take {expected:.1f} s, the budget allows {limit:.1f} s")


def _run(contender: Contender, inputs: Inputs, ring: Ring) -> float:
    prepared = _load(contender, inputs, ring)
    begin = time.perf_counter()
    prepared.run()
    seconds = time.perf_counter() - begin
    prepared.close()
    return seconds


def _load(contender: Contender, inputs: Inputs, ring: Ring):
    prepare = contender.method.load(ring.team.size)
    return prepare(inputs, ring.layout.threads, ring.team.comm, contender.choice.options)


def _prepare(contender: Contender, ring: Ring) -> None:
    """Allocate and run the first whole call, twice unless it is slow: loading code leaves megabytes behind."""
    begin = time.perf_counter()
    with compile_timer() as durations:
        _run_measured(contender, ring)
    contender.jit_seconds += sum(durations)
    contender.kernel = contender.prepared.kernel
    if ring.team.agree(bool(durations) or time.perf_counter() - begin < SLOW_SECONDS):
        contender.prepared.close()
        contender.prepared = None
        _run_measured(contender, ring)


def _run_measured(contender: Contender, ring: Ring) -> None:
    """Prepare and run a whole call, and see what both added to the resident memory."""
    inputs = ring.inputs(contender.choice)
    memory.reset_peak()
    before = memory.resident_bytes()
    contender.prepared = _load(contender, inputs, ring)
    contender.prepared.run()
    peak = memory.peak_bytes()
    contender.memory = _memory(contender, ring, None if before is None or peak is None else peak - before)


def _memory(contender: Contender, ring: Ring, added: int | None) -> dict:
    """Bytes of the fullest rank: Q, K, V and O; what the method needed beside them; both; what the model says."""
    inputs, output = ring.inputs(contender.choice), contender.prepared.output
    output_bytes = 0 if output is None else output.nbytes
    tensors = inputs.q.nbytes + inputs.k.nbytes + inputs.v.nbytes + output_bytes
    workspace = -1 if added is None else max(0, added - output_bytes)
    ranks = ring.team.gather((tensors, workspace, _local_share(inputs)))
    tensors, workspace = max(entry[0] for entry in ranks), max(entry[1] for entry in ranks)
    known = min(entry[1] for entry in ranks) >= 0
    shares = [entry[2] for entry in ranks]
    model = contender.method.workspace_bytes(ring.workload, ring.layout, contender.choice.options)
    return {
        "tensors_bytes": tensors,
        "workspace_bytes": workspace if known else None,
        "peak_bytes": tensors + workspace if known else None,
        "model_bytes": tensors + model,
        "local_share": None if None in shares else min(shares),
    }


def _local_share(inputs: Inputs) -> float | None:
    """Share of the pages of K and V on this rank's own NUMA node; None where it has several or nobody can say."""
    own = topology.numa_node_of(affinity.allowed_cpus())
    found = [memory.nodes_of_pages(array.ctypes.data, array.nbytes) for array in (inputs.k, inputs.v)]
    if own is None or None in found:
        return None
    pages = [node for nodes in found for node in nodes]
    return sum(node == own for node in pages) / len(pages) if pages else 1.0
