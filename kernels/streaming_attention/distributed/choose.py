"""What each strategy costs over ranks, by bytes and FLOPs, and which of them is the fastest.

A rank is a roofline (FLOP/s and memory bandwidth), the network a latency and a bandwidth of what one rank sends while
all of them do (R. Hockney, "The communication challenge for MPP", 1994). Counts are those of the rank that has most to
do; under a causal mask they are exact. Pure arithmetic: no MPI, no arrays, O(ranks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streaming_attention import models
from streaming_attention.distributed.strategies import AUTO, OVERLAPPING, STRATEGIES
from streaming_attention.dtypes import DTYPES
from streaming_attention.slices import key_slice, pairs_between, zigzag_slices
from streaming_attention.workload import Workload

STATE_EXTRA, RESULT_EXTRA = 2, 1
"""Numbers of a row beside its head_dim: maximum and total of a softmax state, log-sum-exp of a finished result."""

STATE_ITEM = 4
"""Bytes of a number of either, whatever the dtype of Q, K and V."""


@dataclass(frozen=True)
class Network:
    """What one rank can send while all ranks do.

    Parameters
    ----------
    latency : float
        Seconds of a message beside its bytes.
    bandwidth : float
        Bytes per second.
    """

    latency: float
    bandwidth: float

    def seconds(self, messages: int, sent: int) -> float:
        """Time of messages that follow one another."""
        return messages * self.latency + sent / self.bandwidth


@dataclass(frozen=True)
class Rates:
    """What one rank computes and moves while all ranks do.

    Parameters
    ----------
    gflops : float
        GFLOP/s of the two products on tiles in the caches.
    gbs : float
        GB/s that it reads from memory.
    """

    gflops: float
    gbs: float

    def seconds(self, flops: int, moved: int) -> float:
        """The longer of computing and moving."""
        return max(flops / self.gflops, moved / self.gbs) * 1e-9


NOMINAL = Network(latency=5e-6, bandwidth=5e9)
"""A good network or the shared memory of one host; counts until a network was measured."""

TIE = 1.01
"""Calls that differ by less than this factor are equal for a model."""

NOMINAL_GFLOPS = 150.0
"""Of one thread; the registry's rate of the streaming kernels."""


def nominal_rates(threads: int) -> Rates:
    """A rank of so many threads, before anything was measured."""
    return Rates(NOMINAL_GFLOPS * threads, models.NOMINAL_GBS * threads)


@dataclass(frozen=True)
class Cost:
    """What one call costs the rank that pays most.

    Parameters
    ----------
    compute_seconds : float
        Attention, and merging the states.
    bytes_sent, messages : int
        On the longest chain of messages, one after the other.
    seconds : float
        Of the whole call: computing, and the part of the communication that doesn't hide behind it.
    memory_bytes : int
        Q, K, V and O as far as the rank holds them, buffers and states; scratch of the kernels not counted.
    """

    compute_seconds: float
    bytes_sent: int
    messages: int
    seconds: float
    memory_bytes: int

    @property
    def exposed_seconds(self) -> float:
        """Communication that the rank waits for."""
        return self.seconds - self.compute_seconds


def choose(
    workload: Workload,
    ranks: int,
    network: Network = NOMINAL,
    rates: Rates | None = None,
    memory_bytes: int | None = None,
    among: Sequence[str] = STRATEGIES,
) -> str:
    """The simplest strategy whose call is within :data:`TIE` of the shortest.

    Parameters
    ----------
    workload : Workload
    ranks : int
    network, rates : Network, Rates
        As measured, or nominal ones (of one thread).
    memory_bytes : int, optional
        What one rank may hold; the leanest strategy is taken where none fits.
    among : sequence of str
        The strategies that come into question.
    """
    every = {name: costs(name, workload, ranks, network, rates) for name in among}
    fitting = [name for name in every if memory_bytes is None or every[name].memory_bytes <= memory_bytes]
    if not fitting:
        return min(every, key=lambda name: every[name].memory_bytes)
    shortest = min(every[name].seconds for name in fitting)
    return next(name for name in fitting if every[name].seconds <= TIE * shortest)


def resolve(strategy: str, workload: Workload, ranks: int, threads: int) -> str:
    """What a method's option stands for: ``auto`` is settled by nominal numbers, so that no measurement decides it."""
    return choose(workload, ranks, rates=nominal_rates(threads)) if strategy == AUTO else strategy


def costs(
    strategy: str,
    workload: Workload,
    ranks: int,
    network: Network = NOMINAL,
    rates: Rates | None = None,
    overlap: bool = True,
) -> Cost:
    """What a strategy costs.

    Parameters
    ----------
    strategy : str
        A name in :data:`streaming_attention.distributed.strategies.STRATEGIES`.
    workload : Workload
    ranks : int
    network, rates : Network, Rates
        As measured, or nominal ones (of one thread).
    overlap : bool
        Whether strategies that can compute while messages travel.

    Raises
    ------
    ValueError
        Unknown strategy, or no ranks.
    """
    if strategy not in _DEMANDS:
        raise ValueError(f"strategy: {strategy!r} is unknown; allowed: {', '.join(STRATEGIES)}")
    if ranks < 1:
        raise ValueError(f"ranks: {ranks} is not positive")
    rates = rates or nominal_rates(1)
    demand = _DEMANDS[strategy](_Share(workload, ranks))
    compute = rates.seconds(demand.flops, demand.moved) + rates.seconds(0, demand.merged)
    seconds = compute + network.seconds(demand.messages, demand.sent)
    if overlap and strategy in OVERLAPPING:
        seconds -= sum(
            step.count * min(network.seconds(step.messages, step.sent), compute / ranks) for step in demand.steps
        )
    return Cost(compute, demand.sent, demand.messages, seconds, demand.memory)


@dataclass(frozen=True)
class _Step:
    """Messages that can travel while a rank computes with one block; ``count`` alike."""

    count: int
    messages: int
    sent: int


@dataclass(frozen=True)
class _Demand:
    """What a strategy asks of the rank that has most to do; sizes in bytes."""

    flops: int
    moved: int
    memory: int
    merged: int = 0
    messages: int = 0
    sent: int = 0
    steps: tuple[_Step, ...] = ()


class _Share:
    """Sizes of the largest slices of a workload over ranks, in bytes."""

    def __init__(self, workload: Workload, ranks: int):
        self.workload, self.ranks = workload, ranks
        self.row = workload.head_dim * DTYPES[workload.dtype]
        self.queries, self.keys = -(-workload.queries // ranks), -(-workload.keys // ranks)
        self.q_rows = workload.batch * workload.heads
        self.kv_rows = workload.batch * workload.kv_heads

    def q(self, tokens: int) -> int:
        """Of Q, and likewise of O, over some tokens."""
        return self.q_rows * tokens * self.row

    def kv(self, tokens: int) -> int:
        """Of K and V together."""
        return 2 * self.kv_rows * tokens * self.row

    def state(self, tokens: int) -> int:
        """Of the softmax states of some queries."""
        return self.q_rows * tokens * (self.workload.head_dim + STATE_EXTRA) * STATE_ITEM

    def result(self, tokens: int) -> int:
        """Of finished rows of some queries."""
        return self.q_rows * tokens * (self.workload.head_dim + RESULT_EXTRA) * STATE_ITEM

    def sums(self, tokens: int) -> int:
        """Of the fp32 numbers that an O of 16 bits is rounded from; an O of fp32 is summed up in place."""
        stored = DTYPES[self.workload.dtype]
        return 0 if stored == STATE_ITEM else self.q_rows * tokens * self.workload.head_dim * STATE_ITEM

    def own(self) -> int:
        """Of Q, O, K and V by sequence."""
        return 2 * self.q(self.queries) + self.kv(self.keys)

    def flops(self, pairs: Callable[[int], int]) -> int:
        """FLOPs of the busiest rank, from the pairs of one head that each rank computes."""
        return 4 * self.workload.head_dim * self.q_rows * max(map(pairs, range(self.ranks)))

    def by_queries(self, rank: int) -> int:
        """Pairs between a rank's slice of the queries and all keys."""
        workload = self.workload
        return pairs_between(workload, key_slice(workload.queries, rank, self.ranks), (0, workload.keys))

    def by_zigzag(self, rank: int) -> int:
        """Pairs between a rank's two chunks of the queries and all keys."""
        chunks = zigzag_slices(self.workload.queries, rank, self.ranks)
        return sum(pairs_between(self.workload, chunk, (0, self.workload.keys)) for chunk in chunks)

    def meetings(self, rank: int) -> int:
        """Pairs of as many steps as there are ranks: a rank's own slices meet first, then the largest of all ranks."""
        workload = self.workload
        own = [key_slice(count, rank, self.ranks) for count in (workload.queries, workload.keys)]
        whole = pairs_between(workload, (0, workload.queries), (0, workload.keys))
        return min(whole, pairs_between(workload, *own) + (self.ranks - 1) * self.queries * self.keys)

    def by_keys(self, rank: int) -> int:
        """Pairs between all queries and a rank's slice of the keys."""
        workload = self.workload
        return pairs_between(workload, (0, workload.queries), key_slice(workload.keys, rank, self.ranks))


def _spread(share: _Share) -> _Demand:
    workload = share.workload
    rounds = (share.ranks - 1).bit_length()
    q, state = share.q(workload.queries), share.state(workload.queries)
    return _Demand(
        flops=share.flops(share.by_keys),
        moved=2 * q + share.kv(share.keys),
        merged=3 * rounds * state,
        messages=rounds,
        sent=rounds * state,
        memory=2 * q + share.kv(share.keys) + share.sums(workload.queries) + (2 * state if share.ranks > 1 else 0),
    )


def _allgather(share: _Share) -> _Demand:
    """Each head of K and of V is gathered by itself; while they come, a rank can compute with its own keys."""
    others, everything = share.ranks - 1, share.kv(share.workload.keys)
    messages, sent = 2 * share.kv_rows * others, others * share.kv(share.keys)
    return _Demand(
        flops=share.flops(share.by_queries),
        moved=2 * share.q(share.queries) + everything,
        merged=6 * share.result(share.queries) if others else 0,
        messages=messages,
        sent=sent,
        steps=(_Step(1, messages, sent),),
        memory=share.own() + share.sums(share.queries) + (everything if others else 0),
    )


def _ring(share: _Share) -> _Demand:
    return _around(share, share.by_queries)


def _zigzag(share: _Share) -> _Demand:
    return _around(share, share.by_zigzag)


def _around(share: _Share, pairs: Callable[[int], int]) -> _Demand:
    """K and V of a block are a message each."""
    others, block = share.ranks - 1, share.kv(share.keys)
    return _Demand(
        flops=share.flops(pairs),
        moved=2 * share.q(share.queries) + share.kv(share.workload.keys),
        merged=3 * others * share.result(share.queries),
        messages=2 * others,
        sent=others * block,
        steps=(_Step(others, 2, block),),
        memory=share.own() + share.sums(share.queries) + (2 * block if others else 0),
    )


def _heads(share: _Share) -> _Demand:
    """Ranks beyond the heads have none; K/V heads go to every rank that has a head of their group.

    Five all-to-alls: Q, K, V, then O and its log-sum-exp.
    """
    workload, ranks = share.workload, share.ranks
    heads = [key_slice(workload.heads, rank, ranks) for rank in range(ranks)]
    group = workload.heads // workload.kv_heads
    counts = [stop - start for start, stop in heads]
    shared = [-(-stop // group) - start // group if stop > start else 0 for start, stop in heads]
    q_row, kv_row = workload.batch * share.row, 2 * workload.batch * share.row
    q_sent = (workload.heads - min(counts)) * share.queries * q_row
    kv_sent = (sum(shared) - min(shared)) * share.keys * kv_row
    o_row = workload.batch * (share.row + RESULT_EXTRA * STATE_ITEM)
    o_sent = max(counts) * (workload.queries - workload.queries // ranks) * o_row
    mine = 2 * max(counts) * workload.queries * q_row + max(shared) * workload.keys * kv_row
    pairs = workload.batch * max(counts) * pairs_between(workload, (0, workload.queries), (0, workload.keys))
    return _Demand(
        flops=4 * workload.head_dim * pairs,
        moved=mine,
        messages=5 * (ranks - 1),
        sent=q_sent + kv_sent + o_sent if ranks > 1 else 0,
        memory=share.own() + (mine if ranks > 1 else 0),
    )


def _pass_q(share: _Share) -> _Demand:
    """Results make one hop more than queries, the last of them with nothing to compute beside it.

    Every block of queries reads the rank's K/V anew. Ranks wait for queries to come by: fewer queries than ranks take
    as long as one for each.
    """
    workload, others = share.workload, share.ranks - 1
    block, result = share.q(share.queries), share.result(share.queries)
    return _Demand(
        flops=share.flops(share.meetings),
        moved=2 * share.q(workload.queries) + share.ranks * share.kv(share.keys),
        merged=3 * others * result,
        messages=2 * others + 1 if others else 0,
        sent=others * block + share.ranks * result if others else 0,
        steps=(_Step(1, 1, block), _Step(others - 1, 2, block + result), _Step(1, 1, result)) if others else (),
        memory=share.own() + share.sums(share.queries) + (2 * block + 3 * result if others else 0),
    )


_DEMANDS: dict[str, Callable[[_Share], _Demand]] = {
    "spread": _spread,
    "allgather": _allgather,
    "ring": _ring,
    "zigzag": _zigzag,
    "heads": _heads,
    "pass_q": _pass_q,
}
