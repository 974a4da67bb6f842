"""How much of a cluster one job asks for: whole nodes, tasks and their cores, memory, and how long."""

from __future__ import annotations

import math

from streaming_attention.machine.layout import Layout
from streaming_attention.machine.topology import Machine

START_UP_MB, RANK_MB = 1000, 400
"""Memory before any tensor: of a job, Snakemake's two processes and the supervisor; of a rank, Python with Numba."""

LIMIT_SECONDS, LIMIT_FACTOR = 300, 4
"""A job may take so many times its predicted time, and these seconds: compiling, a slow file system."""

RUNTIME_MARGIN_MINUTES = 5
"""SLURM's limit comes so much later than the supervisor's, which can say what it ended; job set-up counts, too."""


def job_size(layout: Layout, machine: Machine, seconds: float, rank_bytes: int = 0) -> dict:
    """The resources of a job, by the names that Snakemake's SLURM plugin knows (and ``limit``, the supervisor's).

    Parameters
    ----------
    layout : Layout
    machine : Machine
        Its nodes' memory is never exceeded.
    seconds : float
        Predicted for the job.
    rank_bytes : int
        Tensors and workspace of one rank.

    Returns
    -------
    dict
        ``nodes``, ``tasks`` and ``cpus_per_task``: the layout. ``mpi``: ``srun`` for several ranks, empty for one;
        set in both cases, which keeps a job from being wrapped in a step: the ranks' own srun would wait inside for
        ever. ``mem_mb``: of a node. ``limit`` (seconds) is the supervisor's, ``runtime`` (minutes) SLURM's.
        ``slurm_extra``: whole nodes, ranks spread evenly, and no second hardware thread of a core unless the layout
        has more threads than cores.
    """
    limit = LIMIT_SECONDS + math.ceil(LIMIT_FACTOR * seconds)
    return {
        "mpi": "srun" if layout.ranks > 1 else "",
        "nodes": layout.nodes,
        "tasks": layout.ranks,
        "cpus_per_task": layout.threads,
        "mem_mb": min(_memory_mb(layout, rank_bytes), machine.memory_bytes // 2**20),
        "limit": limit,
        "runtime": math.ceil(limit / 60) + RUNTIME_MARGIN_MINUTES,
        "slurm_extra": " ".join(_extra(layout, machine)),
    }


def _memory_mb(layout: Layout, rank_bytes: int) -> int:
    return START_UP_MB + layout.ranks_per_node * (RANK_MB + math.ceil(rank_bytes / 2**20))


def _extra(layout: Layout, machine: Machine) -> list[str]:
    words = ["--exclusive", f"--ntasks-per-node={layout.ranks_per_node}"]
    if layout.binding == "cores":
        words.append(f"--ntasks-per-socket={layout.ranks_per_socket}")
    if uses_hardware_threads(layout, machine):
        return [*words, "--hint=multithread"]
    return [*words, "--hint=nomultithread"]


def uses_hardware_threads(layout: Layout, machine: Machine) -> bool:
    """Whether a layout has more threads than there are cores for them."""
    if layout.binding == "cores":
        return layout.ranks_per_socket * layout.threads > machine.cores_per_socket
    return layout.ranks_per_node * layout.threads > machine.cores_per_node
