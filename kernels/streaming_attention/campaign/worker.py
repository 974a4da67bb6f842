"""The process that does a job's work, one per rank: ``python -m streaming_attention.campaign.worker COMMAND``.

The order matters. MPI comes first, since only it can say which rank this is; then the rank is bound to its cores and
the thread variables are settled; only then are NumPy, Numba and the kernels imported, which read both once.
The job is a JSON file written by the supervisor (:mod:`streaming_attention.campaign.launch`).
"""

from __future__ import annotations

import json
import socket
import sys
import traceback
from pathlib import Path

from streaming_attention.campaign.process import Process
from streaming_attention.distributed.team import Team, assemble
from streaming_attention.machine import affinity, isa, topology
from streaming_attention.machine.layout import Layout
from streaming_attention.machine.variables import settle_variables


def main(arguments: list[str]) -> int:
    """Run one job: ``COMMAND JOB_FILE``; rank 0 writes the record."""
    command, job_file = arguments
    job = json.loads(Path(job_file).read_text())
    layout = Layout(**job["layout"])
    team = None
    try:
        team = assemble(layout.ranks, layout.nodes)
        place(team, layout)
        _run(command, job, team, layout)
    except BaseException as error:
        traceback.print_exc()
        rank = f"rank {team.rank}: " if team and team.size > 1 else ""
        print(f"{rank}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        if team:
            team.abort()
        return 1
    return 0


def place(team: Team, layout: Layout) -> None:
    """Bind this rank as the layout says and see to it that no two ranks share a core.

    A launcher that has already given the rank exactly its number of cores (srun) is believed.

    Raises
    ------
    streaming_attention.machine.affinity.BindingError
        The cores are not there, or ranks overlap; every rank raises alike.
    """
    if layout.binding == "none":
        return
    cpus, local_rank = affinity.allowed_cpus(), team.local_rank()
    given = all(team.gather(len(cpus) == layout.threads)) and not _shared_cores(team)
    if not given:
        sockets = topology.socket_cores("/", cpus)
        share = affinity.share_of_rank(sockets, layout.sockets, layout.ranks_per_socket, layout.threads, local_rank)
        affinity.bind(share)
    if _shared_cores(team):
        raise affinity.BindingError(f"ranks share cores: {team.gather(affinity.allowed_cpus())}")


def _shared_cores(team: Team) -> bool:
    return bool(affinity.overlaps(team.gather((socket.gethostname(), affinity.allowed_cpus()))))


def _run(command: str, job: dict, team: Team, layout: Layout) -> None:
    if "numpy" in sys.modules:
        raise ImportError("NumPy was imported before the thread variables were settled, and its BLAS has read them")
    process = Process(layout, settle_variables(layout.threads))
    from streaming_attention.campaign import jit, jobs

    process.crews.muster()
    jit.settle_cache(isa.cpu_name())
    record = jobs.JOBS[command](job, team, process)
    if team.rank == 0:
        from streaming_attention.campaign.record import write_record

        write_record(job["output"], record)
    team.barrier()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
