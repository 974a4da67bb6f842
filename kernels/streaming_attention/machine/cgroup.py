"""What the control groups of Linux leave to this process: memory and CPU time, in version 1 and 2."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

_MOUNT = Path("sys/fs/cgroup")


def memory_limit_bytes(root: Path) -> int | None:
    """The tightest memory limit of the process's groups and their ancestors; None without one."""
    limits = _values(root, "", "memory.max") + _values(root, "memory", "memory.limit_in_bytes")
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


def cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time that the tightest quota allows, such as 2.5; None without one."""
    unified = [limit.split() for limit in _values(root, "", "cpu.max")]
    first = zip(_values(root, "cpu", "cpu.cfs_quota_us"), _values(root, "cpu", "cpu.cfs_period_us"), strict=False)
    pairs = [pair for pair in [*unified, *first] if len(pair) == 2 and pair[0].isdigit()]
    return min((int(quota) / int(period) for quota, period in pairs), default=None)


def _values(root: Path, controller: str, name: str) -> list[str]:
    """Content of one file in the process's group and every group above it, as far as they are visible.

    Inside a container the path that ``/proc`` tells is often not there, and the mount shows the container's own group.
    """
    group = _group(root, controller)
    if group is None:
        return []
    mounts = [_MOUNT / controller] if controller else [_MOUNT, _MOUNT / "unified"]
    relative = [path.relative_to("/") for path in (group, *group.parents)]
    files = (root / mount / path / name for mount in mounts for path in relative)
    return [file.read_text().strip() for file in files if file.is_file()]


def _group(root: Path, controller: str) -> PurePosixPath | None:
    """Path of the process's group in the hierarchy of a controller; the unified hierarchy has the empty name."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None
