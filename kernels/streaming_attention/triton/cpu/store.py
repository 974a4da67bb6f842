"""Machine code of shipped kernels on disk, so that no process compiles what an earlier one has compiled.

Beside Numba's cache where ``NUMBA_CACHE_DIR`` says where that is, else in the user's own cache folder. Kernels that
Triton itself compiles lie in Triton's cache instead.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numba
from numba.core import event

from streaming_attention.sources import digest_of
from streaming_attention.triton.cpu import COMPILE_EVENT
from streaming_attention.triton.cpu.kernel import Compiled, compile_ttir
from streaming_attention.triton.cpu.target import Target


@functools.cache
def compiler_digest(target: Target) -> str:
    """What a kernel's machine code depends on beside its TTIR: the compiler's sources, LLVM, the CPU."""
    sources = digest_of(sorted(Path(__file__).parent.glob("*.py")))
    parts = (sources, version("llvmlite"), target.name, target.cpu, target.feature_string)
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def load_or_compile(text: str, target: Target) -> Compiled:
    """A kernel from the disk, else compiled and put there.

    Raises
    ------
    UnsupportedOperation, MemoryError
        As :func:`compile_ttir`.
    """
    path = _folder() / f"{hashlib.sha256((compiler_digest(target) + text).encode()).hexdigest()}.kernel"
    with suppress(OSError, ValueError):  # not there, or not whole
        return Compiled.from_bytes(path.read_bytes())
    with event.trigger_event(COMPILE_EVENT):
        compiled = compile_ttir(text, target)
    with suppress(OSError):  # a disk that can't be written costs time, no more
        _write(path, compiled.to_bytes())
    return compiled


def _folder() -> Path:
    base = Path(numba.config.CACHE_DIR) if numba.config.CACHE_DIR else Path.home() / ".cache/streaming-attention"
    return base / "triton"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    os.replace(temporary, path)
