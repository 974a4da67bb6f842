"""Compiled kernels: where they are cached, and how long compiling them took."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from streaming_attention.triton.cpu import COMPILE_EVENT

_PACKAGE = Path(__file__).parents[1]


def package_digest() -> str:
    """sha256 over every Python source of the package outside ``campaign/``, as hex."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if "campaign" not in path.relative_to(_PACKAGE).parts:
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def settle_cache(cpu: str) -> Path:
    """Point Numba's cache at a folder of this user, CPU, Numba version and kernel sources; returns it.

    Numba's own check looks at one file's time stamp: it would keep stale code when an intrinsic in another file
    changes, and it races on a shared file system. So the folder is node-local and named by a digest of all sources.
    A ``NUMBA_CACHE_DIR`` that is already set is the folder it lies in.

    Raises
    ------
    PermissionError
        The folder exists and belongs to somebody else, whose files we would execute.
    """
    base = os.environ.get("NUMBA_CACHE_DIR")
    root = Path(base) if base else Path(tempfile.gettempdir()) / f"streaming-attention-{os.getuid()}"
    key = hashlib.sha256(f"{cpu}|{version('numba')}|{package_digest()}".encode()).hexdigest()[:16]
    folder = root / key
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root}: belongs to user {root.stat().st_uid}; set NUMBA_CACHE_DIR to a folder of yours")
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    return folder


@contextmanager
def compile_timer() -> Iterator[list[float]]:
    """Collects the seconds of every compilation inside the block, Triton's too; what a cache gives costs none."""
    from numba.core import event

    durations: list[float] = []
    with event.install_timer("numba:compile", durations.append), event.install_timer(COMPILE_EVENT, durations.append):
        yield durations
