"""From the model to machines that aren't here: the published cluster, and 1,024 sockets at T = 1M to 16M.

One rank a socket, the strategy by the model's own choice among those that fit the memory. Everything that was not
measured is an assumption, and :func:`assumptions` prints each.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from streaming_attention.campaign import published
from streaming_attention.campaign.aggregate import Tables
from streaming_attention.campaign.scaling.prediction import model_of
from streaming_attention.campaign.scaling.published_shape import published_ranks, round_seconds
from streaming_attention.distributed.choose import Cost, Network, Rates, choose, costs
from streaming_attention.machine.layout import Layout
from streaming_attention.method import MEMORY_SHARE
from streaming_attention.workload import Workload

METHOD = "streaming"
LENGTHS = tuple(count << 20 for count in (1, 2, 4, 8, 16))
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
WORKLOADS = (
    Workload("query", heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM),
    Workload("prefill", heads=HEADS, kv_heads=KV_HEADS, head_dim=HEAD_DIM, causal=True),
)
EFFICIENCY = 0.7
"""Share of a rank's ceilings that the kernel reaches, for campaigns without a point of the workload on one rank."""

CYCLES, PER_CYCLE, CORES = 1.6e9, 64, 26
INTERNAL = Network(latency=2e-6, bandwidth=10e9)
"""Between the sockets of a node, for each of them."""


@dataclass(frozen=True)
class Cluster:
    """A machine that the model is asked about.

    Parameters
    ----------
    name : str
    nodes, sockets_per_node : int
    gflops, gbs : float
        Ceilings of one socket: matrix product and memory.
    gbits : float
        Of one node's link, GBit/s.
    latency : float
        Seconds of a message between nodes.
    memory_gib : int
        Of a node.
    """

    name: str
    nodes: int
    sockets_per_node: int
    gflops: float
    gbs: float
    gbits: float
    latency: float
    memory_gib: int

    @property
    def sockets(self) -> int:
        return self.nodes * self.sockets_per_node

    def layout(self, ranks: int) -> Layout:
        """One rank a socket, nodes filled first."""
        sockets = min(ranks, self.sockets_per_node)
        return Layout(nodes=ranks // sockets, sockets=sockets, threads=CORES)

    def network(self, layout: Layout) -> Network:
        """What one rank has of its node's link while all ranks of the node use it."""
        if layout.nodes == 1:
            return INTERNAL
        return Network(self.latency, self.gbits / 8 * 1e9 / layout.ranks_per_node)

    @functools.cached_property
    def rank_bytes(self) -> int:
        """Memory that a rank may fill."""
        return int(MEMORY_SHARE * self.memory_gib * 2**30 / self.sockets_per_node)


@functools.cache
def clusters() -> tuple[Cluster, ...]:
    """The published cluster, and a thousand sockets of its kind on a faster network."""
    rates = published.load_bandwidth()
    triad = float(rates.loc[(rates["name"] == "triad") & (rates["threads"] == CORES), "rate"].iloc[0])
    gflops = CORES * PER_CYCLE * CYCLES / 1e9
    latency = round_seconds(published_ranks())
    return (
        Cluster("published cluster", 8, 2, gflops, triad, 10.0, latency, 192),
        Cluster("1,024 sockets", 512, 2, gflops, triad, 200.0, 3e-6, 512),
    )


def assumptions(tables: Tables) -> Iterator[tuple[str, str, str]]:
    """Cluster, item and value of everything that is assumed or taken from elsewhere."""
    for one in clusters():
        yield one.name, "machine", f"{one.nodes} nodes of {one.sockets_per_node} sockets, one rank a socket"
        yield (
            one.name,
            "matrix product of a socket",
            f"{one.gflops:.0f} GFLOP/s: {CORES} cores x {PER_CYCLE} FLOP a cycle x {CYCLES / 1e9:g} GHz under AVX-512, "
            "assumed (Xeon Gold 6230R)",
        )
        yield one.name, "memory of a socket", f"{one.gbs:g} GB/s: its published triad on {CORES} threads"
        yield one.name, "link of a node", f"{one.gbits:g} Gbit/s, shared by its ranks; assumed, nothing is published"
        fitted = "fitted to the published times at T = 1024" if one.latency > 1e-5 else "assumed"
        yield one.name, "latency between nodes", f"{1e6 * one.latency:.3g} µs, {fitted}"
        yield (
            one.name,
            "memory of a node",
            f"{one.memory_gib} GiB, {100 * MEMORY_SHARE:.0f} % of it for tensors; assumed",
        )
    for workload in WORKLOADS:
        share, record = efficiency(tables, workload)
        source = f"as on one rank here, record {record}" if record else "assumed: this campaign has no such point"
        yield "both", f"share of a socket's ceilings that {workload.name} reaches", f"{100 * share:.0f} %, {source}"
    yield "both", "between the sockets of a node", f"{INTERNAL.bandwidth / 1e9:g} GB/s, assumed"
    yield "both", "computing while messages travel", "hides them wholly as far as it lasts; no contention in switches"
    yield "both", "workloads", f"{HEADS} heads, {KV_HEADS} of K and V, d = {HEAD_DIM}, fp32; prefill causal"


def efficiency(tables: Tables, workload: Workload) -> tuple[float, str]:
    """Share of one rank's ceilings, with the record it was seen in; an assumption where there is none."""
    return model_of(tables).largest_on_one_rank(METHOD, workload.name) or (EFFICIENCY, "")


def questions() -> Iterator[tuple[Cluster, Workload, Layout]]:
    """Every workload and T on every cluster, from a few sockets to all of them."""
    for cluster in clusters():
        ranks = [1 << step for step in range(0, cluster.sockets.bit_length(), 1 if cluster.sockets <= 16 else 2)]
        for workload in WORKLOADS:
            for keys in LENGTHS:
                for count in ranks:
                    queries = keys if workload.name == "prefill" else 1
                    yield cluster, replace(workload, keys=keys, queries=queries), cluster.layout(count)


def answer(tables: Tables, cluster: Cluster, workload: Workload, layout: Layout) -> tuple[str, Cost] | None:
    """The strategy and what it costs; None where no strategy fits the memory."""
    return _best(cluster, workload, layout, efficiency(tables, workload)[0])


@functools.lru_cache(maxsize=1024)
def _best(cluster: Cluster, workload: Workload, layout: Layout, share: float) -> tuple[str, Cost] | None:
    rates = Rates(share * cluster.gflops, share * cluster.gbs)
    network = cluster.network(layout)
    strategy = choose(workload, layout.ranks, network, rates, cluster.rank_bytes)
    cost = costs(strategy, workload, layout.ranks, network, rates)
    return (strategy, cost) if cost.memory_bytes <= cluster.rank_bytes else None


def seconds(tables: Tables, cluster: str, workload: Workload, ranks: int) -> float:
    """The time of :func:`answer` by the cluster's name; NaN where nothing fits the memory.

    Raises
    ------
    KeyError
        There is no such cluster.
    """
    one = {one.name: one for one in clusters()}[cluster]
    found = answer(tables, one, workload, one.layout(ranks))
    return found[1].seconds if found else math.nan
