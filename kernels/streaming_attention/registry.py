"""Every method by name. To add a method, add an entry here; nothing else asks for names.

Light to import: a method's code loads when it is asked to run.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from streaming_attention import models
from streaming_attention.distributed import buffers, holdings
from streaming_attention.distributed.strategies import AUTO, OVERLAP, STRATEGIES
from streaming_attention.dtypes import DTYPES
from streaming_attention.method import Choices, Method, Option, OptionError
from streaming_attention.streaming import footprint, schedule
from streaming_attention.triton import footprint as triton
from streaming_attention.workload import Workload

__all__ = ["METHODS", "Choice", "Method", "Option", "OptionError", "UnknownMethod", "expand", "find_method"]


class UnknownMethod(ValueError):
    """A name that the registry doesn't hold."""


ISA = Choices(default=footprint.BEST, values=footprint.ISA_NAMES)
"""Instruction set of the vector kernels."""

BLOCK = Option(default=schedule.BLOCK, minimum=16, maximum=4096)
"""Keys that share one step of the online softmax."""

STRATEGY = Choices(default=AUTO, values=(AUTO, *STRATEGIES), over_ranks=True)
"""How several ranks share out the work; ``auto``: what a model of the costs finds to be the fastest."""

OVERLAPPED = Choices(default=OVERLAP[0], values=OVERLAP, over_ranks=True)
"""Whether ranks compute while messages travel, where a strategy can."""


def _torch_limits(workload: Workload) -> str | None:
    if workload.causal and workload.queries > workload.keys:
        return "torch_sdpa defines no result for the queries that see no key (causal, queries > keys)"
    return None


def _torch_workspace(workload: Workload, threads: int) -> int:
    """Bytes of the boolean mask, needed where torch's top-left ``is_causal`` is not the bottom-right one."""
    needs_mask = workload.causal and 1 < workload.queries < workload.keys
    return workload.queries * workload.keys if needs_mask else 0


_ALL = (
    Method(
        name="naive",
        summary="the textbook: scores of a head written out, softmax over rows, weighted sum",
        target="streaming_attention.baselines.naive:prepare",
        rate=4.0,
        workspace=models.naive_workspace,
    ),
    Method(
        name="gemm",
        summary="two BLAS products around a softmax, scores of a K/V head written out",
        target="streaming_attention.baselines.gemm:prepare",
        rate=60.0,
        workspace=models.gemm_workspace,
        same_bits=False,
    ),
    Method(
        name="streaming",
        dtypes=tuple(DTYPES),
        summary="online softmax in vector registers: prefill and decode kernels; over MPI ranks by several strategies",
        target="streaming_attention.streaming.vector:prepare",
        distributed_target="streaming_attention.distributed.front:prepare",
        rate=150.0,
        workspace=footprint.workspace,
        distributed_workspace=buffers.workspace,
        distributed_holding=holdings.streaming,
        distributed_dtypes=tuple(DTYPES),
        options={"block": BLOCK, "isa": ISA, "strategy": STRATEGY, "overlap": OVERLAPPED},
    ),
    Method(
        name="streaming_loops",
        summary="the same algorithm as plain loops, the rung to read first; K/V spread over MPI ranks",
        target="streaming_attention.streaming.attend:prepare",
        distributed_target="streaming_attention.distributed.spread:prepare_loops",
        rate=40.0,
        workspace=schedule.workspace,
        distributed_workspace=schedule.workspace,
        distributed_holding=holdings.streaming_loops,
        options={"block": BLOCK},
    ),
    Method(
        name="triton_streaming",
        summary="prefill written in Triton, compiled for this CPU from the TTIR that is shipped",
        target="streaming_attention.triton.methods:prepare_streaming",
        data=("triton/snapshots/prefill.json.xz",),
        rate=150.0,
        workspace=triton.prefill_workspace,
        options={"isa": ISA},
        limits=triton.prefill_limits,
    ),
    Method(
        name="triton_decode",
        summary="few queries over split keys written in Triton, compiled for this CPU from the TTIR that is shipped",
        target="streaming_attention.triton.methods:prepare_splits",
        data=("triton/snapshots/decode.json.xz",),
        rate=20.0,
        workspace=triton.decode_workspace,
        options={"isa": ISA},
        limits=triton.decode_limits,
    ),
    Method(
        name="torch_sdpa",
        dtypes=tuple(DTYPES),
        summary="torch.nn.functional.scaled_dot_product_attention, a peer where torch is installed",
        target="streaming_attention.baselines.torch_sdpa:prepare",
        rate=60.0,
        workspace=_torch_workspace,
        same_bits=False,
        requires=("torch",),
        limits=_torch_limits,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}


@dataclass(frozen=True)
class Choice:
    """A method and the options given for it; what isn't given stays the method's default."""

    method: str
    options: dict = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.label)

    @property
    def label(self) -> str:
        """``streaming`` or ``streaming block=64``."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.options.items())])


def find_method(name) -> Method:
    """The method of that name.

    Raises
    ------
    UnknownMethod
        Naming the methods there are.
    """
    if not isinstance(name, str) or name not in METHODS:
        raise UnknownMethod(f"unknown method {name!r}; allowed: {', '.join(METHODS)}")
    return METHODS[name]


def expand(entry) -> list[Choice]:
    """The choices that one entry of a config's ``methods`` stands for.

    Parameters
    ----------
    entry : str or mapping
        ``"streaming"`` or ``{"streaming": {"block": [64, 128]}}``; lists of options multiply.

    Raises
    ------
    UnknownMethod, OptionError
    """
    if isinstance(entry, str):
        return [Choice(find_method(entry).name)]
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UnknownMethod(f"{entry!r} is neither a method's name nor one name with its options")
    ((name, options),) = entry.items()
    method = find_method(name)
    if not isinstance(options or {}, Mapping):
        raise OptionError(f"options of {name}: {options!r} is not a mapping of option names to values")
    return [_choice(method, combination) for combination in _combinations(options or {})]


def _combinations(options: Mapping) -> list[dict]:
    values = [value if isinstance(value, list) else [value] for value in options.values()]
    for name, listed in zip(options, values, strict=True):
        if not listed:
            raise OptionError(f"option {name}: the list is empty")
    return [dict(zip(options, combination, strict=True)) for combination in itertools.product(*values)]


def _choice(method: Method, options: dict) -> Choice:
    checked = method.complete(options)
    return Choice(method.name, {name: checked[name] for name in options})
