"""From a config file to a campaign: read, checked, completed with defaults, and unfolded into points."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from streaming_attention.campaign.document import ConfigError, Document, read_document, show
from streaming_attention.campaign.files import SCHEMAS
from streaming_attention.campaign.point import Point, ordered, refusals
from streaming_attention.campaign.schema import check, read_schema, with_defaults
from streaming_attention.campaign.sweep import Sweep
from streaming_attention.machine.layout import Layout
from streaming_attention.machine.slurm import Cluster, SlurmError
from streaming_attention.machine.topology import Machine, TopologyError, this_machine

__all__ = ["SCHEMA", "Campaign", "ConfigError", "load_config"]

SCHEMA = SCHEMAS / "config.schema.json"
"""The schema of the config, which also holds every default."""


@dataclass(frozen=True)
class Campaign:
    """What a config asks for.

    Parameters
    ----------
    path : str
        The config's file, as given.
    name : str
    machine : Machine
    protocol, workloads, sweeps, report : dict
        The config's mappings with every default filled in.
    points : tuple of Point
        Points of which at least one method can run: one job each.
    infeasible : tuple of Point
        Points that no method can run on this machine; they stay in the plan and in the report.
    reasons : dict
        By point id and label, why a method can't run there; points without such a method are left out.
    origins : dict
        By point id, the sweeps that ask for it.
    budget : dict
        Limits of ``node_hours``, ``core_hours`` and ``job_minutes``, as far as the config sets them.
    partition, constraint : str or None
        Where a cluster's jobs must go, if the config says so.
    """

    path: str
    name: str
    machine: Machine
    protocol: dict
    workloads: dict
    sweeps: dict
    report: dict
    points: tuple[Point, ...]
    infeasible: tuple[Point, ...]
    reasons: dict[str, dict[str, str]]
    origins: dict[str, tuple[str, ...]]
    budget: dict[str, float] = field(default_factory=dict)
    partition: str | None = None
    constraint: str | None = None

    @cached_property
    def _by_id(self) -> dict[str, Point]:
        return {point.id: point for point in (*self.points, *self.infeasible)}

    def point(self, identifier: str) -> Point:
        """The point of that id.

        Raises
        ------
        KeyError
            There is none.
        """
        return self._by_id[identifier]

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """The layouts that points run on, each once: one measurement of ceilings each."""
        return tuple(dict.fromkeys(point.layout for point in self.points))

    def feasible(self, point: Point) -> tuple[str, ...]:
        """Labels of a point's methods that can run on the machine."""
        refused = self.reasons.get(point.id, {})
        return tuple(label for label in point.labels if label not in refused)


def load_config(
    path: str | os.PathLike,
    overrides: Mapping | None = None,
    *,
    machine: Machine | None = None,
    schema_path: Path = SCHEMA,
) -> Campaign:
    """Read a config file and unfold it.

    Parameters
    ----------
    path : path
    overrides : mapping, optional
        Laid over the file key by key, at every depth: what the command line sets.
    machine : Machine, optional
        Stands for ``auto``, ``slurm`` or a partition instead of asking: a job must see the machine its controller saw.
    schema_path : Path

    Raises
    ------
    ConfigError
        Anything wrong with the config, in one line: file, line, key, value, and what is allowed.
    """
    document, schema = read_document(path, overrides), read_schema(schema_path)
    check(document, schema)
    data = with_defaults(document.data, schema, schema)
    document = replace(document, data=data)
    _check_fields(document)
    there = _machine(document, machine)
    points, origins = _unfold(Sweep(name, document, there) for name in data["sweeps"])
    if not points:
        raise document.error(("sweeps",), "leave no point to measure", "at least one point that is not excluded")
    reasons = {point.id: found for point in points if (found := refusals(point, there))}
    stopped = {point.id for point in points if len(reasons.get(point.id, ())) == len(point.methods)}
    return Campaign(
        path=document.path,
        name=data["campaign"],
        machine=there,
        **{key: data[key] for key in ("protocol", "workloads", "sweeps", "report")},
        points=tuple(point for point in points if point.id not in stopped),
        infeasible=tuple(point for point in points if point.id in stopped),
        reasons=reasons,
        origins=origins,
        budget=data["budget"],
        **_place(data["machine"]),
    )


def _unfold(sweeps: Iterable[Sweep]) -> tuple[list[Point], dict[str, tuple[str, ...]]]:
    """All points, equal ones joined with the methods of both, first repeats first; and the sweeps of each."""
    points: dict[str, Point] = {}
    origins: dict[str, dict[str, None]] = {}
    for sweep in sweeps:
        for point in sweep.points():
            known = points.get(point.id)
            methods = ordered([*known.methods, *point.methods]) if known else point.methods
            points[point.id] = replace(point, methods=methods)
            origins.setdefault(point.id, {})[sweep.name] = None
    by_repeat = sorted(points.values(), key=lambda point: point.repeat)
    return by_repeat, {identifier: tuple(names) for identifier, names in origins.items()}


def _machine(document: Document, machine: Machine | None) -> Machine:
    described = document.data["machine"]
    asked = _place(described)
    if described not in ("auto", "slurm") and not asked:
        return Machine(**described)
    try:
        return machine or (this_machine() if described == "auto" else _nodes_of_slurm(**asked))
    except (TopologyError, SlurmError) as error:
        problem = f"is {show(described)}, but {error}"
        raise document.error(("machine",), problem, "a mapping that describes the machine") from error


def _place(described: str | dict) -> dict:
    """Partition and constraint, of a machine that names them."""
    names_one = isinstance(described, dict) and "partition" in described
    return {key: described.get(key) for key in ("partition", "constraint")} if names_one else {}


def _nodes_of_slurm(partition: str | None = None, constraint: str | None = None) -> Machine:
    return Cluster().machine(partition, constraint)


def _check_fields(document: Document) -> None:
    """What fields must be to one another, beyond what a schema can say."""
    protocol = document.data["protocol"]
    if protocol["max_samples"] < protocol["min_samples"]:
        allowed = f"at least min_samples, {protocol['min_samples']}"
        raise document.value_error(("protocol", "max_samples"), protocol["max_samples"], allowed)
    for name, workload in document.data["workloads"].items():
        heads, kv_heads = workload["heads"], workload.get("kv_heads", workload["heads"])
        if heads % kv_heads:
            raise document.value_error(("workloads", name, "kv_heads"), kv_heads, f"a divisor of the {heads} heads")
    names = [entry["name"] for entry in document.data["report"]["compare"]]
    for position, name in enumerate(names):
        if name in names[:position]:
            keys = ("report", "compare", position, "name")
            raise document.value_error(keys, name, "a name that no other comparison has")
