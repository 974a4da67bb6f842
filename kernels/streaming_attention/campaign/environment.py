"""What a job ran on and with: versions, commit, variables, and per rank its host, mask and instruction set."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from streaming_attention.campaign.jit import package_digest
from streaming_attention.campaign.process import Process
from streaming_attention.distributed.team import Team
from streaming_attention.machine import affinity, isa, memory, topology

PACKAGES = ("streaming-attention", "numpy", "numba", "llvmlite", "mpi4py", "mpich", "threadpoolctl", "torch")
_ROOT = Path(__file__).parents[3]


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_job(team: Team, process: Process) -> dict:
    """The environment of a job for its record; every rank calls it, every rank gets the same.

    Parameters
    ----------
    team : Team
    process : Process
    """
    commit, dirty = git_commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "variables": process.variables,
        "threading_layer": threading_layer(),
        "blas": blas_libraries(),
        "mpi": team.mpi_version(),
        "ranks": team.gather(describe_rank(team.rank) | {"threads_bound": process.crews.bound}),
    }


def describe_rank(rank: int) -> dict:
    """What this process sees of its host from inside."""
    mask = affinity.allowed_cpus()
    return {
        "rank": rank,
        "host": socket.gethostname(),
        "mask": mask,
        "socket": topology.socket_of(mask),
        "numa_node": topology.numa_node_of(mask),
        "cpu": isa.cpu_name(),
        "isa": sorted(isa.flags()),
        "governor": _governor(mask[0]),
        "digest": package_digest(),
        "memory_gib": round((memory.total_bytes() or 0) / 2**30, 2),
        "pid": os.getpid(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "slurm_step_id": os.environ.get("SLURM_STEP_ID"),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that a timing depends on, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout and whether tracked files differ from it; (None, None) outside a checkout."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def threading_layer() -> str | None:
    """Numba's threading layer, once a parallel kernel has run; None before."""
    numba = sys.modules.get("numba")
    try:
        return numba.threading_layer() if numba else None
    except ValueError:
        return None


def blas_libraries() -> list[dict]:
    """The BLAS libraries that are loaded, with the code path each picked (OpenBLAS: ``architecture``)."""
    import threadpoolctl

    keys = ("internal_api", "version", "architecture", "threading_layer", "num_threads")
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return [{key: pool[key] for key in keys if key in pool} for pool in pools]


def _governor(cpu: int) -> str | None:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", _ROOT, *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
