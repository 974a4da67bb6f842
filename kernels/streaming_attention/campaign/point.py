"""A point: one workload on one layout, every method that is asked for there, once. One job, one record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streaming_attention import models
from streaming_attention.campaign.scaling.nominal import call_seconds
from streaming_attention.machine.layout import Layout
from streaming_attention.machine.placement import misfit
from streaming_attention.machine.topology import Machine
from streaming_attention.registry import METHODS, Choice
from streaming_attention.workload import Workload

if TYPE_CHECKING:
    from streaming_attention.campaign.config import Campaign

NOT_OF_A_JOB = ("repeats",)
"""Keys of the protocol that decide which jobs there are and not how one runs: a change must not repeat any."""

START_UP_SECONDS = 2.5
"""Of a job before its first call and after its last: processes, imports, compiled code from the cache; seen 1 to 3."""

INPUT_SECONDS_PER_BYTE = 3e-8
"""Drawing the inputs, drawing them anew for the check after timing, and both checks; seen 2e-8 to 4e-8."""

FEWEST_SAMPLES = 3
"""A method of which so many calls don't fit in its budget is timed out."""


@dataclass(frozen=True)
class Point:
    """Workload x layout x repeat.

    Parameters
    ----------
    workload : Workload
    layout : Layout
    methods : tuple of Choice
        Measured interleaved, in the order of the registry.
    repeat : int
        From 0.
    """

    workload: Workload
    layout: Layout
    methods: tuple[Choice, ...]
    repeat: int = 0

    @property
    def id(self) -> str:
        """Name of the point and of its files: letters, digits, _ and -; equal for equal workload, layout and repeat."""
        return f"{self.workload.slug}-{self.layout.slug}-rep{self.repeat}"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(choice.label for choice in self.methods)


def ordered(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """The choices, each once, in the registry's order and by their options: the order of asking leaves no trace."""
    names = list(METHODS)
    unique = {choice.label: choice for choice in choices}
    return tuple(
        sorted(unique.values(), key=lambda choice: (names.index(choice.method), sorted(choice.options.items())))
    )


def refusals(point: Point, machine: Machine) -> dict[str, str]:
    """Why methods of a point can't run on a machine, by label; all of them where the layout has no room."""
    reason = misfit(point.layout, machine)
    if reason:
        return dict.fromkeys(point.labels, reason)
    found = {
        choice.label: METHODS[choice.method].infeasible(
            point.workload, point.layout, machine.memory_bytes, choice.options
        )
        for choice in point.methods
    }
    return {label: reason for label, reason in found.items() if reason}


def predict_seconds(point: Point, protocol: Mapping, feasible: Collection[str] | None = None) -> float:
    """How long a point's job takes at most, as far as nominal rates tell: for a plan and a progress line.

    Parameters
    ----------
    protocol : mapping
        The campaign's; every method is taken to spend its whole sampling budget.
    feasible : collection of str, optional
        Labels of the methods that will run; all of them unless given.
    """
    inputs = models.tensor_bytes(point.workload, point.layout.ranks) * INPUT_SECONDS_PER_BYTE
    running = [choice for choice in point.methods if feasible is None or choice.label in feasible]
    return START_UP_SECONDS + inputs + sum(_method_seconds(point, choice, protocol) for choice in running)


def _method_seconds(point: Point, choice: Choice, protocol: Mapping) -> float:
    """A check before, the warm-up, samples until their number or the budget is reached, and a check after."""
    call = call_seconds(point.workload, choice, point.layout)
    if call * FEWEST_SAMPLES > protocol["max_seconds"]:
        return 0.0  # timed out after a look at a small part
    sample = max(call, protocol["min_sample_seconds"])
    sampling = min(protocol["max_samples"] * sample, protocol["max_seconds"])
    return (2 + protocol["warmup"]) * call + sampling


def spec(point: Point, campaign: Campaign) -> dict:
    """All that a job needs to measure a point, as JSON; what it doesn't name can change without repeating the job."""
    return {
        "id": point.id,
        "campaign": campaign.name,
        "workload": point.workload.as_dict(),
        "layout": point.layout.as_dict(),
        "methods": [
            {"method": choice.method, "options": dict(choice.options), "label": choice.label}
            for choice in point.methods
        ],
        "repeat": point.repeat,
        "protocol": {key: value for key, value in campaign.protocol.items() if key not in NOT_OF_A_JOB},
    }


def from_spec(spec: dict) -> Point:
    """The point of a job, from :func:`spec` or from a record."""
    return Point(
        Workload(**spec["workload"]),
        Layout(**spec["layout"]),
        tuple(Choice(entry["method"], dict(entry["options"])) for entry in spec["methods"]),
        spec["repeat"],
    )
