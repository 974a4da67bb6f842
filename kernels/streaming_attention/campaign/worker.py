"""The process that does a job's work, one per rank: ``python -m streaming_attention.campaign.worker COMMAND``.

The order matters. MPI comes first, since only it can say which rank this is; then the rank is bound to its cores and
the thread variables are settled; only then are NumPy, Numba and the kernels imported, which read both once.
The job is a JSON file written by the supervisor (:mod:`streaming_attention.campaign.launch`).
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from streaming_attention.campaign.process import Process
from streaming_attention.distributed.team import Team, assemble
from streaming_attention.machine import affinity, binding, isa
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
    """Bind this rank as the layout says and see to it that every rank is where it should be.

    CPUs that a launcher (srun) gave to one rank alone are where it stays; those that all were given are shared out.

    Raises
    ------
    streaming_attention.machine.affinity.BindingError
        Other hosts, cores or sockets than the layout's; every rank raises alike.
    """
    seats = team.gather(binding.seat())
    _refuse(binding.crowding(seats, layout))
    if layout.binding == "none":
        return
    affinity.bind(binding.cpus_of_rank(seats, team.rank, layout))
    _refuse(binding.misbinding(team.gather(binding.seat()), layout))


def _refuse(reason: str | None) -> None:
    if reason:
        raise affinity.BindingError(reason)


def _run(command: str, job: dict, team: Team, layout: Layout) -> None:
    if "numpy" in sys.modules:
        raise ImportError("NumPy was imported before the thread variables were settled, and its BLAS has read them")
    process = Process(layout, settle_variables(layout.threads))
    from streaming_attention.campaign import jit, jobs

    process.crews.muster()
    with suppress(ImportError):  # Numba loads it at its first compilation: threads of a BLAS in the midst of a method's
        importlib.import_module("scipy.linalg")
    process.crews.muster()
    jit.settle_cache(isa.cpu_name())
    record = jobs.JOBS[command](job, team, process)
    if team.rank == 0:
        from streaming_attention.campaign.record import write_record

        write_record(job["output"], record)
    team.barrier()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
