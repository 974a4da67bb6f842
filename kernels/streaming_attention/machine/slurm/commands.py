"""Running SLURM's commands, with errors that say what to do."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess

PATIENCE_SECONDS = 60


class SlurmError(RuntimeError):
    """SLURM could not be asked, or its answer was not understood; the message is one line."""


class SlurmMissing(SlurmError):
    """A command of SLURM is not on the path."""


def run(*command: str) -> str:
    """Standard output of a SLURM command.

    Raises
    ------
    SlurmMissing
        It is not installed here.
    SlurmError
        It failed or did not answer; the message has the last line of what it said.
    """
    name = command[0]
    if not shutil.which(name):
        raise SlurmMissing(
            f"{name}: not on the path; is this a login node of a SLURM cluster, and is its module loaded?"
        )
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{name}: no answer within {PATIENCE_SECONDS} s; the controller may be down") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise SlurmError(f"{' '.join(command)}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout + (done.stderr if not done.stdout else "")


@functools.cache
def version() -> tuple[int, int]:
    """The cluster's SLURM release, such as (22, 5) for 22.05.

    Raises
    ------
    SlurmError
        ``sinfo --version`` says something else than a version.
    """
    text = run("sinfo", "--version")
    found = re.search(r"(\d+)\.(\d+)", text)
    if not found:
        raise SlurmError(f"sinfo --version: {text.strip()!r} names no version")
    return int(found[1]), int(found[2])
