"""The start of a campaign on a cluster: alone in its folder, and without the jobs of a run that was killed.

Snakemake's own lock outlives a process that was killed, or whose login node was lost, and then stops the next call. So
the profile for clusters turns it off, and this one takes its place: the operating system frees it with its process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from streaming_attention.machine.slurm.leftovers import cancel_jobs_of

LOCK = Path(".snakemake") / "campaign.lock"


class Busy(RuntimeError):
    """Another process works in the folder."""


def take_over(folder: str | os.PathLike) -> tuple[TextIO, list[str]]:
    """Lock a folder and cancel what an earlier run left in SLURM's queue.

    Returns
    -------
    lock : file
        The lock holds until it is closed or the process ends.
    cancelled : list of str
        Ids of the jobs.

    Raises
    ------
    Busy
        Another run is at work here.
    streaming_attention.machine.slurm.SlurmError
        SLURM is not there or does not answer.
    """
    lock = hold(Path(folder) / LOCK)
    return lock, cancel_jobs_of(folder)


def hold(path: Path) -> TextIO:
    """Lock a file for this process and write into it who it is.

    Raises
    ------
    Busy
        Somebody else holds it; the message says who.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = open(path, "a+")  # noqa: SIM115  (it stays open as long as the lock is held)
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        raise Busy(f"{path}: another run is at work here: {stream.read().strip()}") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise  # else a file system without locks: nothing can be told
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    stream.flush()
    return stream
