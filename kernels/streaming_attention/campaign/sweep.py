"""From a sweep of the config to points: products of lists, lists that advance together, exclusions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from streaming_attention.campaign.document import Document, Keys, suggestion
from streaming_attention.campaign.point import Point, ordered
from streaming_attention.machine.layout import Layout
from streaming_attention.machine.placement import layouts
from streaming_attention.machine.topology import Machine
from streaming_attention.models import tensor_bytes
from streaming_attention.registry import METHODS, Choice, Option, OptionError, expand
from streaming_attention.workload import Workload

WORKLOAD_AXES = ("batch", "heads", "kv_heads", "queries", "keys", "head_dim", "causal", "dtype")
LAYOUT_AXES = ("ranks", "nodes", "sockets", "ranks_per_socket", "threads", "binding")
KEYS_PER_RANK = "keys_per_rank"
"""An axis that is no field of a workload: its keys are so many times the ranks of the layout (weak scaling)."""
WORDS = ("powers", "all")

MOST_COMBINATIONS = 100_000
"""A sweep beyond this is a slip of the keyboard."""


def combine(axes: Mapping[str, Sequence], zips: Sequence[Sequence[str]] = ()) -> Iterator[dict]:
    """Every combination of the axes' values, one dict each; the axes of a zip group advance together.

    Parameters
    ----------
    axes : mapping of str to sequence
        Values by name; the last axis varies fastest.
    zips : sequence of sequences of str
        Disjoint groups of names whose values are equally many.
    """
    groups = _groups(axes, zips)
    columns = [list(zip(*(axes[name] for name in group), strict=True)) for group in groups]
    names = list(itertools.chain.from_iterable(groups))
    for combination in itertools.product(*columns):
        values = dict(zip(names, itertools.chain.from_iterable(combination), strict=True))
        yield {name: values[name] for name in axes}


def matches(pattern: Mapping, fields: Mapping) -> bool:
    """Whether every key of a pattern has its value, or one of its values, among the fields."""
    return all(fields[name] in _as_list(value) for name, value in pattern.items())


class Sweep:
    """One block of the config's ``sweeps``.

    Parameters
    ----------
    name : str
    document : Document
        Its data valid and with all defaults.
    machine : Machine
        What ``powers`` and ``all`` refer to.

    Raises
    ------
    ConfigError
        An unknown workload or method, a wrong zip group, or too many combinations.
    """

    def __init__(self, name: str, document: Document, machine: Machine):
        self.name, self.document, self.machine = name, document, machine
        self.block = document.data["sweeps"][name]
        self.repeats = self.block.get("repeats", document.data["protocol"]["repeats"])
        named = ("workload", *WORKLOAD_AXES, KEYS_PER_RANK)
        given = {axis: self.block[axis] for axis in named if axis in self.block}
        placed = {axis: self.block["layout"][axis] for axis in LAYOUT_AXES if axis in self.block["layout"]}
        self.axes = {axis: _as_list(value) for axis, value in {**given, **placed}.items()}
        self._check_names()
        self._check_layout()
        self._check_keys()
        self._check_zips()
        self.choices = self._choices()
        self._check_exclusions()

    def points(self) -> Iterator[Point]:
        """The points of this sweep, repeats included; equal ones may come more than once.

        Raises
        ------
        ConfigError
            A combination that is no attention problem, or one that the whole machine has no memory for.
        """
        for fields in combine(self.axes, self.block["zip"]):
            for layout in layouts({axis: fields[axis] for axis in LAYOUT_AXES if axis in fields}, self.machine):
                workload = self._workload(fields, layout)
                methods = ordered(self._kept(workload, layout))
                for repeat in range(self.repeats if methods else 0):
                    yield Point(workload, layout, methods, repeat)

    def _workload(self, fields: dict, layout: Layout) -> Workload:
        shape = dict(self.document.data["workloads"][fields["workload"]])
        shape.update((axis, fields[axis]) for axis in WORKLOAD_AXES if axis in fields)
        if KEYS_PER_RANK in fields:
            shape["keys"] = fields[KEYS_PER_RANK] * layout.ranks
        if "keys" not in shape:
            defined = f"workloads.{fields['workload']}"
            raise self.document.error(
                self._keys("keys"), f"is missing, and {defined} has none", "integers of at least 1"
            )
        shape.setdefault("queries", shape["keys"])
        shape.setdefault("kv_heads", shape["heads"])
        workload = Workload(fields["workload"], **shape)
        self._check_workload(workload)
        return workload

    def _check_workload(self, workload: Workload) -> None:
        if workload.heads % workload.kv_heads:
            allowed = f"a divisor of the {workload.heads} heads"
            raise self.document.value_error(self._origin("kv_heads", workload), workload.kv_heads, allowed)
        needed, there = tensor_bytes(workload), self.machine.nodes * self.machine.memory_bytes
        if needed > there:
            problem = f"is {workload.keys}, for which Q, K, V and O take {needed / 2**30:.3g} GiB"
            allowed = f"what the machine's {there / 2**30:.6g} GiB can hold"
            raise self.document.error(self._origin("keys", workload), problem, allowed)

    def _kept(self, workload: Workload, layout: Layout) -> list[Choice]:
        """The methods that no exclusion takes out of a point."""
        fields = {**workload.as_dict(), **layout.as_dict(), "workload": workload.name, "ranks": layout.ranks}
        return [
            choice
            for choice in self.choices
            if not any(matches(pattern, {**fields, "method": choice.method}) for pattern in self.block["exclude"])
        ]

    def _choices(self) -> list[Choice]:
        entries = self.block["methods"]
        choices = []
        for position, entry in enumerate(_as_list(entries)):
            where = (position,) if isinstance(entries, list) else ()
            self._check_method(entry, ("sweeps", self.name, "methods", *where))
            choices += expand(entry)
        return [Choice(choice.method, dict(sorted(choice.options.items()))) for choice in choices]

    def _check_method(self, entry: str | dict, keys: Keys) -> None:
        """Name and options of one entry of ``methods``."""
        ((name, options),) = [(entry, None)] if isinstance(entry, str) else entry.items()
        if name not in METHODS:
            raise self.document.choice_error(keys, name, METHODS)
        known = METHODS[name].options
        for option, values in (options or {}).items():
            if option not in known:
                allowed = ", ".join(known) or f"no options, {name} has none"
                problem = f"is not an option of {name}{suggestion(option, list(known))}"
                raise self.document.error((*keys, name, option), problem, allowed)
            self._check_option(known[option], option, values, (*keys, name, option))

    def _check_option(self, option: Option, name: str, values, keys: Keys) -> None:
        allowed = f"{option.allowed}, or a non-empty list of such"
        if values == []:
            raise self.document.value_error(keys, values, allowed)
        for position, value in enumerate(_as_list(values)):
            try:
                option.check(name, value)
            except OptionError:
                where = (*keys, position) if isinstance(values, list) else keys
                raise self.document.value_error(where, value, allowed) from None

    def _check_names(self) -> None:
        workloads = self.document.data["workloads"]
        for name in self.axes["workload"]:
            if name not in workloads:
                raise self.document.choice_error(self._position("workload", name), name, workloads)

    def _check_layout(self) -> None:
        one_by_one = [axis for axis in ("nodes", "sockets", "ranks_per_socket") if axis in self.axes]
        if "ranks" in self.axes and one_by_one:
            problem = f"stands beside {' and '.join(one_by_one)}"
            allowed = "either ranks, or nodes, sockets and ranks_per_socket"
            raise self.document.error(self._keys("ranks"), problem, allowed)

    def _check_keys(self) -> None:
        if KEYS_PER_RANK in self.axes and "keys" in self.axes:
            keys = self._keys(KEYS_PER_RANK)
            raise self.document.error(keys, "stands beside keys", "either keys, or keys_per_rank")

    def _check_zips(self) -> None:
        """Every name of a group is a list of numbers in this sweep, equally long, and in no other group."""
        taken: set[str] = set()
        for position, group in enumerate(self.block["zip"]):
            keys = ("sweeps", self.name, "zip", position)
            for place, axis in enumerate(group):
                if axis not in self.axes:
                    raise self.document.choice_error((*keys, place), axis, self.axes)
                if axis in taken:
                    raise self.document.error((*keys, place), f"names {axis} again", "every key in one group, once")
                if any(value in WORDS for value in self.axes[axis]):
                    problem = f"names {axis}, which has {' or '.join(WORDS)}"
                    raise self.document.error((*keys, place), problem, "lists whose numbers are written out")
                taken.add(axis)
            lengths = {axis: len(self.axes[axis]) for axis in group}
            if len(set(lengths.values())) > 1:
                counted = ", ".join(f"{axis} has {length}" for axis, length in lengths.items())
                raise self.document.error(keys, f"joins lists of unequal length ({counted})", "equally many values")
        count = math.prod(len(self.axes[group[0]]) for group in _groups(self.axes, self.block["zip"]))
        if count > MOST_COMBINATIONS:
            raise self.document.error(
                ("sweeps", self.name), f"has {count} combinations", f"at most {MOST_COMBINATIONS} in a sweep"
            )

    def _check_exclusions(self) -> None:
        """A workload or method that this sweep doesn't have would exclude nothing, silently."""
        known = {"workload": self.axes["workload"], "method": [choice.method for choice in self.choices]}
        for position, pattern in enumerate(self.block["exclude"]):
            for axis in known.keys() & pattern.keys():
                for name in _as_list(pattern[axis]):
                    if name not in known[axis]:
                        keys = ("sweeps", self.name, "exclude", position, axis)
                        raise self.document.choice_error(keys, name, dict.fromkeys(known[axis]))

    def _keys(self, axis: str) -> Keys:
        """Where this sweep gives an axis."""
        return ("sweeps", self.name, *(("layout",) if axis in LAYOUT_AXES else ()), axis)

    def _position(self, axis: str, value) -> Keys:
        """Where one value of an axis stands: an entry of a list, or the key itself."""
        keys = self._keys(axis)
        given = self.block.get(axis)
        return (*keys, given.index(value)) if isinstance(given, list) else keys

    def _origin(self, axis: str, workload: Workload) -> Keys:
        """Where a workload has one of its fields from: this sweep, or the workload's definition."""
        if axis == "keys" and KEYS_PER_RANK in self.axes:
            return self._keys(KEYS_PER_RANK)
        if axis in self.axes:
            return self._position(axis, getattr(workload, axis))
        return ("workloads", workload.name, axis)


def _groups(axes: Mapping[str, Sequence], zips: Sequence[Sequence[str]]) -> list[list[str]]:
    """Names that advance together, each group where its first name stands."""
    group_of = {name: list(group) for group in zips for name in group}
    groups: list[list[str]] = []
    for name in axes:
        group = group_of.get(name, [name])
        if group not in groups:
            groups.append(group)
    return groups


def _as_list(value) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]
