"""A cluster as a campaign needs it: the machine it offers, what is free, how long a job would wait, what jobs used."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from types import ModuleType

from streaming_attention.machine.slurm import library, structured, text
from streaming_attention.machine.slurm.commands import SlurmError, run, version
from streaming_attention.machine.slurm.model import Account, Node, Partition, QueuedJob
from streaming_attention.machine.topology import Machine

_START = re.compile(r"to start at (\S+)")


class Cluster:
    """The cluster that this host belongs to.

    Parameters
    ----------
    sources : sequence of modules, optional
        Where answers come from, the next one where one fails; pyslurm, JSON and text unless given.
    """

    def __init__(self, sources: Sequence[ModuleType] | None = None):
        self._given = sources

    def nodes(self, partition: str | None = None, constraint: str | None = None) -> list[Node]:
        """Nodes of a partition (the default one unless named) that have a feature, if one is named.

        Raises
        ------
        SlurmError
            There is no such partition, or no node of it has the feature; the message names those there are.
        """
        everything = self._ask("nodes")
        chosen = self.partition(partition).name
        nodes = [node for node in everything if chosen in node.partitions]
        having = [node for node in nodes if constraint is None or constraint in node.features]
        if not having:
            known = sorted({feature for node in nodes for feature in node.features})
            raise SlurmError(f"no node of partition {chosen} has feature {constraint!r}; there are: {', '.join(known)}")
        return having

    def partitions(self) -> list[Partition]:
        """Every partition."""
        return self._ask("partitions")

    def partition(self, name: str | None = None) -> Partition:
        """The partition of that name, or the default one.

        Raises
        ------
        SlurmError
            There is none; the message names those there are.
        """
        there = self.partitions()
        found = [one for one in there if (one.name == name if name else one.default)]
        if not found:
            asked = f"partition {name!r} does not exist" if name else "the cluster has no default partition"
            raise SlurmError(f"{asked}; there are: {', '.join(one.name for one in there)}")
        return found[0]

    def queue(self) -> list[QueuedJob]:
        """Every job that waits or runs."""
        return self._ask("queue")

    def accounts(self, job_ids: Iterable[str]) -> dict[str, Account]:
        """What accounting knows of these jobs, by id; empty where the cluster keeps none."""
        try:
            return {account.id: account for account in self._ask("accounts", list(job_ids))}
        except SlurmError as error:
            if "accounting storage is disabled" in str(error):
                return {}
            raise

    def machine(self, partition: str | None = None, constraint: str | None = None) -> Machine:
        """The ``machine:`` of a config that runs on these nodes; see :func:`fitting_machine`."""
        return fitting_machine(self.nodes(partition, constraint))

    def start_of(self, *words: str) -> int | None:
        """Unix time at which the scheduler would start a job with these sbatch options; None where it can't tell.

        Raises
        ------
        SlurmError
            It would refuse the job.
        """
        found = _START.search(run("sbatch", "--test-only", "--wrap=true", *words))
        return None if not found else int(time.mktime(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S")))

    @cached_property
    def source(self) -> str:
        """Name of what answers first here: pyslurm, JSON or text."""
        return {library: "pyslurm", structured: "JSON", text: "text"}.get(self._sources[0], self._sources[0].__name__)

    @cached_property
    def _sources(self) -> list[ModuleType]:
        if self._given is not None:
            return list(self._given)
        found = [structured, text] if version() >= structured.SINCE else [text]
        try:
            library.load()
        except SlurmError:
            return found
        return [library, *found]

    def _ask(self, question: str, *arguments):
        """The answer of the first source that gives one; the last one's error where none does."""
        *first, last = self._sources
        for source in first:
            try:
                return getattr(source, question)(*arguments)
            except Exception:  # pyslurm raises its own errors, and releases differ: the next source may do
                continue
        return getattr(last, question)(*arguments)


def shapes_of(nodes: Iterable[Node]) -> Counter:
    """How many nodes there are of each shape, the most frequent first."""
    return Counter(dict(Counter(node.shape for node in nodes).most_common()))


def fitting_machine(nodes: Sequence[Node]) -> Machine:
    """The machine that equal nodes make up: those that are usable, of one shape.

    Raises
    ------
    SlurmError
        No node is usable, or their shapes differ; the message lists the shapes with a feature that picks each.
    """
    usable = [node for node in nodes if node.usable]
    if not usable:
        states = ", ".join(f"{count} {state}" for state, count in Counter(node.state for node in nodes).items())
        raise SlurmError(f"no node is usable: {states}")
    shapes = {node.shape[:3] for node in usable}
    if len(shapes) > 1:
        listed = "; ".join(_described(shape, usable) for shape in sorted(shapes))
        raise SlurmError(f"nodes differ, choose some by a constraint: {listed}")
    sockets, cores, threads = shapes.pop()
    return Machine(
        nodes=len(usable),
        sockets_per_node=sockets,
        cores_per_socket=cores,
        threads_per_core=threads,
        memory_gib=min(node.memory_mb for node in usable) * 100 // 1024 / 100,
    )


def _described(shape: tuple[int, int, int], nodes: Sequence[Node]) -> str:
    alike = [node for node in nodes if node.shape[:3] == shape]
    others = {feature for node in nodes if node.shape[:3] != shape for feature in node.features}
    own = sorted(set.intersection(*(set(node.features) for node in alike)) - others)
    picked = f"constraint {own[0]}" if own else "no feature of their own"
    return f"{len(alike)} of {shape[0]} sockets x {shape[1]} cores x {shape[2]} threads ({picked})"
