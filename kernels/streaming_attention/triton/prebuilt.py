"""Shipped kernels: TTIR snapshots that run whether Triton is installed or not. :mod:`snapshot` makes them."""

from __future__ import annotations

import hashlib
import json
import lzma
from functools import cache
from pathlib import Path

from streaming_attention.triton.cpu.kernel import Kernel
from streaming_attention.triton.cpu.store import load_or_compile
from streaming_attention.triton.cpu.target import BEST, make_target
from streaming_attention.triton.specializations import Specialization

SNAPSHOTS = Path(__file__).parent / "snapshots"
SOURCES = Path(__file__).parent / "kernels"


class SnapshotError(RuntimeError):
    """A kernel that isn't shipped."""


@cache
def kernel(specialization: Specialization, isa: str = BEST) -> Kernel:
    """A shipped kernel ready to be called.

    Parameters
    ----------
    specialization : Specialization
    isa : str
        ``best, avx512, avx2`` or ``portable``.

    Raises
    ------
    SnapshotError
        It isn't shipped.
    ValueError
        An instruction set that this CPU lacks.
    """
    return Kernel(load_or_compile(read(specialization), make_target(isa)))


def read(specialization: Specialization) -> str:
    """TTIR of a shipped kernel.

    Raises
    ------
    SnapshotError
        There is none.
    """
    texts = _archive(specialization.module)
    if specialization.name not in texts:
        raise SnapshotError(f"{specialization.name}: no snapshot of this kernel is shipped")
    return texts[specialization.name]


@cache
def _archive(module: str) -> dict[str, str]:
    """All snapshots of a module's kernels by name; they differ little, so that together they compress well."""
    path = SNAPSHOTS / f"{module}.json.xz"
    return json.loads(lzma.decompress(path.read_bytes())) if path.exists() else {}


def index() -> dict:
    """Triton's version and the sources' digest that the snapshots were made with."""
    return json.loads((SNAPSHOTS / "index.json").read_text())


def sources_digest() -> str:
    """sha256 over the kernels' sources, which tells whether snapshots are those of the sources here."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
