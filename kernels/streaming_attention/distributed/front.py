"""The method ``streaming`` over ranks: whichever strategy its option names, or the model of the costs picks."""

from __future__ import annotations

from collections.abc import Mapping

from streaming_attention.distributed import allgather, heads, pass_q, ring, spread
from streaming_attention.distributed.choose import resolve
from streaming_attention.distributed.problem import Problem
from streaming_attention.distributed.strategies import AUTO, OVERLAP
from streaming_attention.inputs import Inputs
from streaming_attention.prepared import Prepared

BUILDERS = {
    "spread": spread.prepare,
    "allgather": allgather.prepare,
    "ring": ring.prepare,
    "zigzag": ring.prepare,
    "heads": heads.prepare,
    "pass_q": pass_q.prepare,
}
"""Strategy -> ``prepare(problem, threads, comm, options, strategy, overlap) -> Prepared``."""


def prepare(inputs: Inputs, threads: int, comm, options: Mapping) -> Prepared:
    """Streaming attention over the ranks of a communicator.

    Parameters
    ----------
    inputs : Inputs
        This rank's, with the holding of the strategy (:mod:`.holdings`); it may be empty.
    comm : mpi4py.MPI.Comm
    options : mapping
        ``strategy`` and ``overlap``, as the registry has them; ``isa`` and ``block`` of the kernels.

    Returns
    -------
    Prepared
        Every rank has the rows of its queries, except with ``spread``: there rank 0 has all.

    Raises
    ------
    ValueError
        The inputs are held otherwise than the strategy needs.
    """
    strategy = resolve(options.get("strategy", AUTO), inputs.workload, comm.Get_size(), threads)
    problem = Problem.over(inputs, strategy, comm.Get_size())
    needed = problem.holdings[comm.Get_rank()]
    if inputs.holding != needed:
        raise ValueError(f"inputs: the holding is {inputs.holding}, but {strategy} needs {needed} on this rank")
    overlap = options.get("overlap", OVERLAP[0]) == "on"
    return BUILDERS[strategy](problem, threads, comm, options, strategy, overlap)
