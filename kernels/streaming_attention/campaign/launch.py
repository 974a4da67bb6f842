"""Start a job's ranks, wait for them, and let nothing behind: no orphan process, no partial record, no silence.

This is a light process (no NumPy): it starts the launcher (``mpiexec``, ``srun``, or nothing for one rank) with the
workers' output in the log, ends the whole process group at the time limit or when it is ended itself, and accepts the
job only with a whole, sealed record.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from streaming_attention.campaign.record import RecordError, load_record
from streaming_attention.machine.layout import Layout
from streaming_attention.machine.slurm.allocation import allocation_variables
from streaming_attention.machine.slurm.commands import SlurmError

MPIEXEC = "mpiexec -n {ranks}"
"""Launcher of several ranks on this host; a profile gives another one for a cluster."""

GRACE_SECONDS = 10
_PR_SET_PDEATHSIG = 1


class JobFailed(RuntimeError):
    """A job that left no record; the message says why and where the log is."""


def run_job(command: str, job: dict, launcher: str = MPIEXEC, limit: float | None = None) -> dict:
    """Run one job to its record.

    Parameters
    ----------
    command : str
        A key of :data:`streaming_attention.campaign.jobs.JOBS`.
    job : dict
        Its description; ``layout``, ``output`` and ``log`` are read here.
    launcher : str
        Command line that starts the ranks; ``{nodes} {ranks} {ranks_per_node} {ranks_per_socket} {threads}
        {distribution}`` are filled in. A single rank starts without it, unless it is ``srun``, which also binds.
    limit : float, optional
        Seconds after which the job is ended.

    Returns
    -------
    dict
        The record, as loaded from the disk.

    Raises
    ------
    JobFailed
        The workers failed, the time limit struck, or no valid record came of it.
    """
    output, log = Path(job["output"]), Path(job["log"])
    for path in (output, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".job-", dir=log.parent) as scratch:  # every node has its own /tmp
        job_file = Path(scratch) / "job.json"
        job_file.write_text(json.dumps(job))
        arguments = command_line(command, str(job_file), Layout(**job["layout"]), launcher)
        code = _supervise(arguments, log, limit, _environment(arguments[0], Layout(**job["layout"])))
    return _accept(code, output, log, limit)


def command_line(command: str, job_file: str, layout: Layout, launcher: str) -> list[str]:
    """The argument list that starts every rank of a job."""
    worker = [sys.executable, "-m", "streaming_attention.campaign.worker", command, job_file]
    words = shlex.split(launcher)
    if layout.ranks == 1 and Path(words[0]).name != "srun":
        return worker
    counts = {
        "nodes": layout.nodes,
        "ranks": layout.ranks,
        "ranks_per_node": layout.ranks_per_node,
        "ranks_per_socket": layout.ranks_per_socket,
        "threads": layout.threads,
        "distribution": "cyclic" if layout.sockets > 1 else "block",
    }
    return [_program(words[0]), *(word.format(**counts) for word in words[1:]), *worker]


def _program(name: str) -> str:
    """The launcher beside this Python (an MPI from a wheel) before one from the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise JobFailed(f"launcher: {name!r} is neither beside {sys.executable} nor on the path")
    return found


def _environment(program: str, layout: Layout) -> dict[str, str]:
    """This process's variables, and for a launcher in a SLURM job those that Snakemake took away."""
    if layout.ranks == 1 or Path(program).name == "srun":
        return dict(os.environ)
    try:
        return {**os.environ, **allocation_variables(layout, os.environ)}
    except SlurmError as error:
        raise JobFailed(str(error)) from error


def _supervise(arguments: Sequence[str], log: Path, limit: float | None, environment: dict[str, str]) -> int | None:
    """Exit code of the command, None when the time limit struck; its process group is gone afterwards."""
    with open(log, "ab") as stream:
        stream.write(f"$ {shlex.join(arguments)}\n".encode())
        stream.flush()
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_group(child)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _die_with_parent() -> None:
    """A supervisor ended by SIGKILL can't clean up: the kernel ends its child, and mpiexec's proxies follow."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _interrupt(number, frame):
    raise SystemExit(128 + number)


def _end_group(child: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGKILL:
            break


def _accept(code: int | None, output: Path, log: Path, limit: float | None) -> dict:
    if code is None:
        output.unlink(missing_ok=True)
        raise JobFailed(f"ended at its time limit of {limit:.0f} s; log: {log}")
    if code != 0:
        output.unlink(missing_ok=True)
        raise JobFailed(f"{last_line(log)} (exit code {code}; log: {log})")
    try:
        return load_record(output)
    except RecordError as error:
        raise JobFailed(f"the workers ended well but left no valid record: {error}; log: {log}") from error


def last_line(log: Path) -> str:
    """The last line of a log that says what went wrong: an error's if there is one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error: " in line and not line.startswith("$ ")]
    return (errors or lines or ["no output"])[-1]
