"""A cluster in a few lines for a terminal: what there is, what is free, and the ``machine:`` of a config."""

from __future__ import annotations

import time

from streaming_attention.machine.slurm.cluster import Cluster, fitting_machine, shapes_of
from streaming_attention.machine.slurm.commands import SlurmError
from streaming_attention.machine.slurm.model import Partition


def overview(cluster: Cluster) -> str:
    """Every partition with the shapes of its nodes, what is free and how long one and all nodes would be waited for."""
    queue = cluster.queue()
    waiting = sum(job.state == "pending" for job in queue)
    head = f"asked by {cluster.source}; {len(queue) - waiting} jobs run, {waiting} wait"
    return "\n".join([head, *(line for one in cluster.partitions() for line in _lines(cluster, one))])


def _lines(cluster: Cluster, one: Partition) -> list[str]:
    limit = "no time limit" if one.limit_seconds is None else f"{one.limit_seconds / 60:g} min at most"
    lines = ["", f"partition {one.name}{' (default)' if one.default else ''}: {one.state}, {limit}"]
    try:
        nodes = cluster.nodes(one.name)
    except SlurmError as error:
        return [*lines, f"  {error}"]
    for (sockets, cores, threads, memory), count in shapes_of(nodes).items():
        lines.append(
            f"  {count} nodes of {sockets} sockets x {cores} cores x {threads} threads, {memory / 1024:.4g} GiB"
        )
    usable, free = sum(node.usable for node in nodes), sum(node.free for node in nodes)
    lines.append(f"  {usable} usable, {free} free now")
    lines += [f"  {count} nodes whole: {_start(cluster, one.name, count)}" for count in sorted({1, usable}) if count]
    return [*lines, f"  machine: {_machine(nodes)}"]


def _start(cluster: Cluster, partition: str, nodes: int) -> str:
    """When SLURM would start a job of ten minutes."""
    words = (f"--partition={partition}", f"--nodes={nodes}", "--exclusive", "--time=10")
    try:
        start = cluster.start_of(*words)
    except SlurmError as error:
        return str(error)
    if start is None:
        return "SLURM does not say when"
    return f"in about {max(0, start - time.time()) / 60:.0f} min"


def _machine(nodes) -> str:
    try:
        described = fitting_machine(nodes).as_config()
    except SlurmError as error:
        return str(error)
    return "{" + ", ".join(f"{key}: {value}" for key, value in described.items()) + "}"
