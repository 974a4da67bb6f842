"""Jobs that a workflow left in the queue when it was killed: found by where they were submitted, and cancelled."""

from __future__ import annotations

import os
import time
from pathlib import Path

from streaming_attention.machine.slurm.commands import SlurmError, run

PATIENCE_SECONDS = 90
"""Beyond SLURM's usual 30 s between asking a job to end and killing it."""


def jobs_of(folder: str | os.PathLike) -> list[str]:
    """Ids of this user's waiting and running jobs that were submitted from a folder."""
    here = Path(folder).resolve()
    lines = [line.split("|", 1) for line in run("squeue", "--me", "-h", "-o", "%i|%Z").splitlines() if "|" in line]
    return [job for job, workdir in lines if Path(workdir).resolve() == here]


def cancel_jobs_of(folder: str | os.PathLike) -> list[str]:
    """Cancel those jobs, wait until they are gone, and return their ids.

    Raises
    ------
    SlurmError
        SLURM does not answer, or they are still there after :data:`PATIENCE_SECONDS`.
    """
    left = jobs_of(folder)
    if not left:
        return []
    run("scancel", *left)
    end = time.monotonic() + PATIENCE_SECONDS
    while set(left) & set(jobs_of(folder)):
        if time.monotonic() > end:
            raise SlurmError(f"jobs of an earlier run don't end: {', '.join(left)}; see squeue --me")
        time.sleep(1)
    return left
