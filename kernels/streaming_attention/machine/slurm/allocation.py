"""What a launcher other than srun must know of its job, put back.

Snakemake's SLURM plugin removes nearly all ``SLURM_*`` variables from a job. srun asks the controller and needs none,
but an ``mpiexec`` reads from them which nodes it has: without them it fails, or starts every rank on the first node.
"""

from __future__ import annotations

from collections.abc import Mapping

from streaming_attention.machine.layout import Layout
from streaming_attention.machine.slurm.commands import run


def allocation_variables(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a job that are missing in its environment; none outside a job, or where all are there.

    Raises
    ------
    streaming_attention.machine.slurm.SlurmError
        SLURM does not say which nodes the job has.
    """
    if "SLURM_JOB_ID" not in environ or "SLURM_JOB_NODELIST" in environ:
        return {}
    nodes = run("squeue", "-h", "-j", environ["SLURM_JOB_ID"], "-o", "%N").strip()
    return {
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_NODELIST": nodes,
        "SLURM_JOB_NUM_NODES": str(layout.nodes),
        "SLURM_NNODES": str(layout.nodes),
        "SLURM_NTASKS": str(layout.ranks),
        "SLURM_NPROCS": str(layout.ranks),
        "SLURM_TASKS_PER_NODE": f"{layout.ranks_per_node}(x{layout.nodes})",
        "SLURM_CPUS_PER_TASK": str(layout.threads),
        "SLURM_CPU_BIND": "none",  # of the step in which mpiexec starts its helpers: ranks are bound by the worker
    }
