"""What a method of the registry is: where its code lies, what it can do, what it needs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from streaming_attention import sources
from streaming_attention.dtypes import DTYPES, why_missing
from streaming_attention.machine.layout import Layout
from streaming_attention.slices import Holding
from streaming_attention.workload import Workload

MEMORY_SHARE = 0.9
"""Share of a node's memory that tensors and workspaces may fill; the rest is the interpreter's and the system's."""


class OptionError(ValueError):
    """An option that a method doesn't have, or a value that it doesn't take."""


@dataclass(frozen=True)
class Option:
    """A number that a method can be tuned with.

    Parameters
    ----------
    default, minimum, maximum : int
        Both bounds belong to the range.
    """

    default: int
    minimum: int
    maximum: int
    over_ranks: ClassVar[bool] = False

    @property
    def extremes(self) -> tuple[int, int]:
        """Values that the gate tries beside the default."""
        return self.minimum, self.maximum

    @property
    def allowed(self) -> str:
        return f"an integer from {self.minimum} to {self.maximum}"

    def check(self, name: str, value) -> int:
        """The value, or an OptionError that says what is allowed."""
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if not is_integer or not self.minimum <= value <= self.maximum:
            raise OptionError(f"option {name}: {value!r} is not {self.allowed}")
        return value


@dataclass(frozen=True)
class Choices:
    """A word that a method can be tuned with, out of a few.

    Parameters
    ----------
    default : str
    values : tuple of str
        The last of them works on every machine.
    over_ranks : bool
        Whether the word matters over several ranks alone; one rank takes it and does what it does without.
    """

    default: str
    values: tuple[str, ...]
    over_ranks: bool = False

    @property
    def extremes(self) -> tuple[str, ...]:
        """Values that the gate tries beside the default: of what ranks do together, all."""
        return tuple(value for value in self.values if value != self.default) if self.over_ranks else self.values[-1:]

    @property
    def allowed(self) -> str:
        return f"one of {', '.join(self.values)}"

    def check(self, name: str, value) -> str:
        """The word, or an OptionError that says what is allowed; YAML has ``on`` and ``off`` as truth values."""
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
        if word not in self.values:
            raise OptionError(f"option {name}: {value!r} is not {self.allowed}")
        return word


@dataclass(frozen=True)
class Method:
    """A way to compute attention.

    Parameters
    ----------
    name, summary : str
    target : str
        ``"package.module:function"`` of its ``prepare(inputs, threads, comm, options) -> Prepared``.
    rate : float
        GFLOP/s of one thread on a compute-bound workload, roughly; only a plan's prediction uses it.
    workspace : callable
        ``(workload, threads, **options) -> int``, the bytes of one rank beyond Q, K, V and O.
    distributed_target, distributed_workspace : str, callable, optional
        The same over MPI ranks; the callable takes ``ranks`` as well.
    distributed_holding : callable, optional
        ``(workload, rank, ranks, threads, **options) -> Holding``, the tokens that a rank must hold before a call.
    dtypes, distributed_dtypes : tuple of str
        On one rank, over several.
    threads : bool
        Whether it can use more than one thread.
    same_bits : bool
        Whether the same inputs give the same bits on any number of threads.
    options : mapping of str to Option or Choices
    requires : tuple of str
        Importable modules it needs beyond this package's own dependencies.
    data : tuple of str
        Files of the package that it reads beside its modules, such as kernels in another language.
    limits : callable, optional
        ``workload -> reason or None``, what the method can't express.
    """

    name: str
    summary: str
    target: str
    rate: float
    workspace: Callable[..., int]
    distributed_target: str | None = None
    distributed_workspace: Callable[..., int] | None = None
    distributed_holding: Callable[..., Holding] | None = None
    dtypes: tuple[str, ...] = ("fp32",)
    distributed_dtypes: tuple[str, ...] = ("fp32",)
    threads: bool = True
    same_bits: bool = True
    options: Mapping[str, Option | Choices] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    limits: Callable[[Workload], str | None] | None = None

    def available(self) -> str | None:
        """None, or why the method can't run in this environment."""
        missing = [module for module in self.requires if importlib.util.find_spec(module) is None]
        missing += [name for name in self.data if not (sources.ROOT / name).is_file()]
        return f"{', '.join(missing)} is not installed" if missing else None

    def infeasible(
        self, workload: Workload, layout: Layout, memory_bytes: int | None = None, options: Mapping | None = None
    ) -> str | None:
        """None, or why the method can't compute this workload on this layout.

        Parameters
        ----------
        memory_bytes : int, optional
            Memory of one node; not checked when absent.
        options : mapping, optional
            Defaults of those that are not given.
        """
        missing = self.available() or self._unable(workload, layout)
        return missing or self._too_big(workload, layout, memory_bytes, options)

    def _unable(self, workload: Workload, layout: Layout) -> str | None:
        where, dtypes = (" over ranks", self.distributed_dtypes) if layout.ranks > 1 else ("", self.dtypes)
        if workload.dtype not in dtypes:
            return f"{self.name} has no {workload.dtype}{where}, only {', '.join(dtypes)}"
        if reason := why_missing(workload.dtype):
            return reason
        if layout.threads > 1 and not self.threads:
            return f"{self.name} runs on one thread, the layout has {layout.threads}"
        if layout.ranks > 1 and self.distributed_target is None:
            return f"{self.name} runs on one rank, the layout has {layout.ranks}"
        if layout.ranks > 1 and importlib.util.find_spec("mpi4py") is None:
            return f"{layout.ranks} ranks need mpi4py, which is not installed"
        return self.limits(workload) if self.limits else None

    def _too_big(
        self, workload: Workload, layout: Layout, memory_bytes: int | None, options: Mapping | None
    ) -> str | None:
        if memory_bytes is None:
            return None
        workspace = self.workspace_bytes(workload, layout, options)
        needed = layout.ranks_per_node * (self.tensor_bytes(workload, layout, options) + workspace)
        if needed <= MEMORY_SHARE * memory_bytes:
            return None
        return (
            f"{self.name} needs {_gib(needed)} GiB a node, {_gib(layout.ranks_per_node * workspace)} of it workspace; "
            f"{_gib(MEMORY_SHARE * memory_bytes)} of the node's {_gib(memory_bytes)} GiB can be used"
        )

    def workspace_bytes(self, workload: Workload, layout: Layout, options: Mapping | None = None) -> int:
        """Bytes that one rank allocates beyond Q, K, V and O."""
        given = self.complete(options or {})
        if layout.ranks > 1:
            return self.distributed_workspace(workload, layout.threads, ranks=layout.ranks, **given)
        alone = {name: value for name, value in given.items() if not self.options[name].over_ranks}
        return self.workspace(workload, layout.threads, **alone)

    def tensor_bytes(self, workload: Workload, layout: Layout, options: Mapping | None = None) -> int:
        """Bytes of Q, K, V and O on the rank that holds most, the first."""
        held = self.holding(workload, layout, 0, options or {})
        rows = workload.heads * held.query_count + workload.kv_heads * held.key_count
        return 2 * workload.batch * rows * workload.head_dim * DTYPES[workload.dtype]

    def holding(self, workload: Workload, layout: Layout, rank: int, options: Mapping) -> Holding:
        """The tokens that a rank must hold before a call: all of them on one rank."""
        if layout.ranks == 1 or self.distributed_holding is None:
            return Holding.whole(workload)
        return self.distributed_holding(workload, rank, layout.ranks, layout.threads, **self.complete(options))

    def complete(self, options: Mapping, over_ranks: bool = True) -> dict:
        """Every option's value: the given ones checked, the defaults of the others.

        Parameters
        ----------
        over_ranks : bool
            Whether options that matter over several ranks alone exist.

        Raises
        ------
        OptionError
            Unknown name or bad value.
        """
        there = {name: option for name, option in self.options.items() if over_ranks or not option.over_ranks}
        for name in options:
            if name not in there:
                has = ", ".join(there) or "none"
                raise OptionError(f"option {name}: {self.name} has no such option; allowed: {has}")
        return {name: option.check(name, options.get(name, option.default)) for name, option in there.items()}

    def sources(self) -> tuple[Path, ...]:
        """Files that decide what the method computes: its modules, all of the package that they import, its data."""
        targets = filter(None, (self.target, self.distributed_target))
        modules = sources.sources_of(target.partition(":")[0] for target in targets)
        return (*modules, *(sources.ROOT / name for name in self.data))

    def digest(self) -> str:
        """sha256 over :meth:`sources`."""
        return sources.digest_of(self.sources())

    def load(self, ranks: int = 1) -> Callable:
        """``prepare(inputs, threads, comm, options) -> Prepared`` for one rank (comm is None) or several."""
        target = self.target if ranks == 1 else self.distributed_target
        if target is None:
            raise ValueError(f"{self.name} runs on one rank, not on {ranks}")
        module, _, function = target.partition(":")
        return getattr(importlib.import_module(module), function)


def _gib(size: float) -> str:
    return f"{size / 2**30:.3g}"
