"""Attention over the ranks of a user's own MPI program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from streaming_attention import checks
from streaming_attention.distributed.agreement import check_alike, code_of, private, together
from streaming_attention.distributed.choose import choose, nominal_rates
from streaming_attention.distributed.front import BUILDERS
from streaming_attention.distributed.masks import Mask
from streaming_attention.distributed.placement import CONTIGUOUS, PLACEMENTS, ZIGZAG, everywhere, runs_of
from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.strategies import AUTO, STRATEGIES
from streaming_attention.distributed.transfer import wire
from streaming_attention.dtypes import name_of
from streaming_attention.inputs import Inputs
from streaming_attention.prepared import Prepared
from streaming_attention.registry import find_method
from streaming_attention.slices import Holding
from streaming_attention.workload import Workload

POSSIBLE = {
    (CONTIGUOUS, False): ("allgather", "ring", "heads", "pass_q"),
    (ZIGZAG, False): ("zigzag",),
    (CONTIGUOUS, True): ("spread",),
}
"""Strategies by where the tokens are, and whether every rank has the same queries."""

SENT = {"spread": "", "allgather": "kv", "ring": "kv", "zigzag": "kv", "heads": "qkv", "pass_q": "q"}
"""Arrays that a strategy sends as they lie, which must be in one piece."""


def attention_over_ranks(
    q,
    k,
    v,
    comm,
    *,
    causal=False,
    scale=None,
    cu_seqlens_q=None,
    cu_seqlens_k=None,
    same_queries=False,
    placement=CONTIGUOUS,
    strategy=AUTO,
    overlap=True,
    layout="bhtd",
    threads=None,
    return_lse=False,
    **options,
):
    """Exact attention over tokens that are shared out over MPI ranks; every rank calls it and gets its rows.

    Parameters
    ----------
    q : ndarray, (batch, heads, queries held here, head_dim), float32, float16 or bfloat16 (``ml_dtypes.bfloat16``)
        This rank's share of the queries. Shares may differ in length and be empty.
    k, v : ndarray, (batch, kv_heads, keys held here, head_dim), the same dtypes, alike
        This rank's share of the keys, likewise; ``heads`` is a multiple of ``kv_heads``.
    comm : mpi4py.MPI.Comm
        Its ranks. Messages travel over a duplicate of it, which is made at the first call and kept with it.
    causal : bool
        Query i of all sees the keys j <= i + keys - queries of all: the last query stands at the last key.
    scale : float, optional
        Factor on the logits, head_dim ** -0.5 unless given.
    cu_seqlens_q, cu_seqlens_k : ndarray, (sequences + 1,), int32, optional
        For sequences of any lengths side by side along the tokens, as of :func:`attention_varlen`: `q` is (queries held
        here, heads, head_dim), `k` and `v` (keys held here, kv_heads, head_dim). The starts count the tokens of all
        ranks; a share may begin and end inside a sequence. Keys' are the queries' unless given.
    same_queries : bool
        Every rank has all queries (a few of them, as in decode) and gets all results; K and V alone are shared out.
    placement : str
        ``"contiguous"``: a rank holds the tokens after those of the rank before it. ``"zigzag"``: it holds those that
        :func:`rank_rows` names, an early and a late chunk, so that a causal mask gives all ranks the same work.
    strategy : str
        ``"allgather"``, ``"ring"``, ``"heads"`` or ``"pass_q"`` (contiguous shares), ``"zigzag"`` (that placement),
        ``"spread"`` (the same queries); ``"auto"``: what a model of bytes and FLOPs finds to be the fastest of those.
    overlap : bool
        Whether to compute while messages travel, where the strategy can.
    layout : str
        ``"bhtd"``, or ``"bthd"`` for (batch, tokens, heads, head_dim) of all arrays but the log-sum-exp; sequences have
        their own.
    threads : int, optional
        Of this rank; as many as Numba's pool has unless given: a thread for each CPU that the rank may use.
    return_lse : bool
        Whether to return the log-sum-exp of every row's logits too.
    **options
        ``block`` and ``isa`` of the kernels.

    Returns
    -------
    out : ndarray, q's shape and dtype
        The rows of this rank's queries. A query that sees no key gets 0.
    lse : ndarray, (batch, heads, queries held here), float32; with sequences (heads, queries held here)
        Natural logarithm; -inf for a query that sees no key. Only with ``return_lse``.

    Raises
    ------
    TypeError, ValueError
        As :func:`attention`, or arguments that differ between ranks where they may not. On all ranks, with the number
        of the rank that it comes from.

    Notes
    -----
    Each rank computes its share of O(queries x keys x head_dim); ``docs/ranks.md`` has memory and bytes by strategy.
    An array that a strategy sends is copied first unless it is C-contiguous in (batch, heads, tokens, head_dim). K, V
    and Q travel as they are stored; results over different keys merge in fp32 and are rounded once. Bits follow from
    shapes and shares, not from threads, overlap or timing. Start programs with ``python -m mpi4py``, so that an error
    elsewhere in a rank ends the others too.

    Sources of the strategies: see the modules in ``streaming_attention.distributed``.

    Examples
    --------
    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from streaming_attention import attention_over_ranks
    >>> q, k, v = np.random.default_rng(MPI.COMM_WORLD.rank).standard_normal((3, 1, 8, 100, 64), dtype=np.float32)
    >>> attention_over_ranks(q, k, v, MPI.COMM_WORLD, causal=True).shape
    (1, 8, 100, 64)
    """
    comm = private(comm)
    shared = {"causal": causal, "cu_seqlens_q": cu_seqlens_q, "cu_seqlens_k": cu_seqlens_k}
    shared |= {"same_queries": same_queries, "placement": placement, "strategy": strategy, "overlap": overlap}
    check = partial(_check, q, k, v, scale, layout, threads, return_lse, shared, options)
    call, numbers = together(comm, check, len(shared) + _MORE)
    check_alike(comm.Get_rank(), call.shared, numbers[:, :-3])
    problem = _problem(call, *numbers[:, -3:-1].T.tolist(), comm.Get_rank())
    out, lse = _compute(call, problem, comm, int(numbers[:, -1].min()))
    out = np.ascontiguousarray(call.arrange(out))
    return (out, lse[0] if call.packed else lse) if return_lse else out


_MORE = 7 + 3
"""Numbers that ranks tell beside the arguments: what must be alike in the arrays and the scale; lengths, threads."""


@dataclass
class _Call:
    """The checked arguments of this rank.

    Parameters
    ----------
    q, k, v : ndarray, (batch, heads, tokens held, head_dim)
    shared : dict
        What must be the same on all ranks, by name.
    arrange : callable
        Brings such an array into the caller's layout.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    shared: dict
    scale: float
    threads: int
    options: dict
    arrange: Callable

    @property
    def packed(self) -> bool:
        return self.shared["cu_seqlens_q"] is not None

    def numbers(self) -> list[int]:
        """For all ranks: codes of what must be the same, the tokens held, threads."""
        return [*map(code_of, self.shared.values()), self.q.shape[2], self.k.shape[2], self.threads]


def _check(q, k, v, scale, layout, threads, return_lse, shared: dict, options) -> tuple[_Call, list[int]]:
    """What one rank can tell of its arguments alone."""
    packed = shared["cu_seqlens_q"] is not None
    axes = ("tokens", "heads", "head_dim") if packed else checks.check_layout("layout", layout)
    given = q, k, v
    q, k, v = (checks.check_array(name, x, axes).view(x.dtype) for name, x in zip("qkv", given, strict=True))
    checks.check_pair(k, v, given[1:])
    q, k, v = (_by_head(x, axes) for x in (q, k, v))
    for name in ("causal", "same_queries", "overlap"):
        shared[name] = checks.check_flag(name, shared[name])
    checks.check_flag("return_lse", return_lse)
    _check_strategy(**{name: shared[name] for name in ("strategy", "placement", "same_queries")})
    if k.shape[0] != q.shape[0] or k.shape[3] != q.shape[3]:
        shapes = f"shape {given[1].shape} doesn't fit q's {given[0].shape}"
        raise ValueError(f"k: {shapes}; batch and head_dim must be equal")
    checks.check_heads(q.shape[1], k.shape[1], q.shape[3])
    scale = checks.check_number("scale", scale)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    alike = {"batch": q.shape[0], "heads of q": q.shape[1], "heads of k": k.shape[1], "head_dim": q.shape[3]}
    alike |= {"dtype of q": str(q.dtype), "dtype of k": str(k.dtype), "scale": scale}
    threads, options = checks.check_threads_argument(threads), _kernel_options(options)
    call = _Call(q, k, v, shared | alike, scale, threads, options, partial(_back, axes=axes))
    return call, call.numbers()


def _check_strategy(strategy, placement, same_queries: bool) -> None:
    for name, value, allowed in (("strategy", strategy, (AUTO, *STRATEGIES)), ("placement", placement, PLACEMENTS)):
        if value not in allowed:
            raise ValueError(f"{name}: {value!r} is not known; allowed: {', '.join(allowed)}")
    if (placement, same_queries) not in POSSIBLE:
        raise ValueError(f"placement: {placement!r}, but same_queries needs {CONTIGUOUS!r} shares of K and V")
    possible = (AUTO, *POSSIBLE[placement, same_queries])
    if strategy not in possible:
        where = f"placement={placement!r} and same_queries={same_queries}"
        raise ValueError(f"strategy: {strategy!r} is not possible with {where}; allowed: {', '.join(possible)}")


def _kernel_options(options: dict) -> dict:
    complete = find_method("streaming").complete(options, over_ranks=False)
    return {name: complete[name] for name in options}


def _by_head(array: np.ndarray, axes: Sequence[str]) -> np.ndarray:
    """A view as (batch, heads, tokens, head_dim)."""
    array = array[None] if len(axes) == 3 else array
    return array if axes.index("heads") < axes.index("tokens") else array.swapaxes(1, 2)


def _back(array: np.ndarray, axes: Sequence[str]) -> np.ndarray:
    """A view in the caller's layout."""
    array = array if axes.index("heads") < axes.index("tokens") else array.swapaxes(1, 2)
    return array[0] if len(axes) == 3 else array


def _problem(call: _Call, queries: list[int], keys: list[int], rank: int) -> Problem:
    """The problem of all ranks together, from the tokens that each holds; an error is every rank's."""
    placement, causal = call.shared["placement"], call.shared["causal"]
    same = call.shared["same_queries"]
    held = everywhere("q", queries) if same else runs_of("q", queries, placement)
    holdings = tuple(map(Holding, held, runs_of("k", keys, placement)))
    queries, keys = queries[0] if same else sum(queries), sum(keys)
    sizes = *call.q.shape[:2], call.k.shape[1], queries, keys, call.q.shape[3]
    workload = Workload("call", *sizes, causal, name_of(call.k.dtype))
    mask = _mask(call, queries, keys) if call.packed else Mask.of(workload)
    return Problem(Inputs(workload, call.q, call.k, call.v, holdings[rank], call.scale), holdings, mask)


def _mask(call: _Call, queries: int, keys: int) -> Mask:
    starts_q, starts_k = call.shared["cu_seqlens_q"], call.shared["cu_seqlens_k"]
    name = "cu_seqlens_q" if starts_k is None else "cu_seqlens_k"
    starts_q = checks.check_starts("cu_seqlens_q", starts_q, queries, "q on all ranks")
    starts_k = starts_q if starts_k is None else starts_k
    starts_k = checks.check_starts(name, starts_k, keys, "k on all ranks")
    if len(starts_k) != len(starts_q):
        raise ValueError(f"cu_seqlens_k: {len(starts_k)} entries, must be {len(starts_q)} as in cu_seqlens_q")
    return Mask.of_starts(starts_q.tolist(), starts_k.tolist(), call.shared["causal"])


def _compute(call: _Call, problem: Problem, comm, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Output and log-sum-exp of this rank's queries, (batch, heads, queries[, head_dim])."""
    if not problem.mask.pairs * problem.inputs.workload.batch:
        return np.zeros_like(call.q), np.full(call.q.shape[:3], -np.inf, np.float32)
    strategy = call.shared["strategy"]
    if strategy == AUTO:
        strategy = _choose(call, problem, comm.Get_size(), threads)
    prepared, _ = together(comm, lambda: (_prepare(call, problem, comm, strategy), []))
    try:
        prepared.run()
        if call.shared["same_queries"]:
            comm.Bcast(wire(prepared.output))
            comm.Bcast(prepared.lse)
    finally:
        prepared.close()
    return prepared.output, prepared.lse


def _choose(call: _Call, problem: Problem, ranks: int, threads: int) -> str:
    """By nominal rates, of the strategies that are possible; sequences count as equal ones with as many pairs."""
    workload, among = problem.inputs.workload, POSSIBLE[call.shared["placement"], call.shared["same_queries"]]
    count = max(1, round(workload.queries * workload.keys / problem.mask.pairs)) if call.packed else 1
    queries, keys = -(-workload.queries // count), -(-workload.keys // count)
    alike = replace(workload, batch=workload.batch * count, queries=queries, keys=keys)
    return choose(alike, ranks, rates=nominal_rates(threads), among=among)


def _prepare(call: _Call, problem: Problem, comm, strategy: str) -> Prepared:
    inputs = problem.inputs
    sent = {name: np.ascontiguousarray(getattr(inputs, name)) for name in SENT[strategy]}
    problem = replace(problem, inputs=replace(inputs, **sent))
    return BUILDERS[strategy](problem, call.threads, comm, call.options, strategy, call.shared["overlap"])
