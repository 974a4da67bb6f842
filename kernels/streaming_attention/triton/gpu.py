"""The same kernels compiled ahead of time for GPUs, on a machine that has none. Compiled is all that this shows."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from streaming_attention.triton.prebuilt import load_function
from streaming_attention.triton.specializations import Specialization, snapshots

TARGETS = {
    "sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64), "gfx1100": ("hip", "gfx1100", 32),
}  # fmt: skip
"""Triton's backend, architecture and warp size by the target's usual name."""

MINIMUM_ROWS = 16
"""GPUs' matrix units take no fewer rows; decode kernels of 2 to 8 rows are for CPUs alone."""


@dataclass(frozen=True)
class Artefact:
    """One kernel for one GPU.

    Parameters
    ----------
    kernel, target : str
    kind : str
        ``cubin`` or ``hsaco``.
    size : int
        Bytes.
    digest : str
        sha256 of the binary.
    seconds : float
        Compile time.
    """

    kernel: str
    target: str
    kind: str
    size: int
    digest: str
    seconds: float


def compile_for(specialization: Specialization, target: str) -> Artefact:
    """Compile one kernel for one GPU; needs Triton, no GPU.

    Raises
    ------
    ValueError
        Unknown target.
    """
    if target not in TARGETS:
        raise ValueError(f"target {target!r}: allowed are {', '.join(TARGETS)}")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    start = time.perf_counter()
    source = ASTSource(
        load_function(specialization), dict(specialization.signature), dict(specialization.constants), {}
    )
    compiled = compile(source, target=GPUTarget(*TARGETS[target]), options={"num_warps": 4, "num_stages": 1})
    kind = "cubin" if "cubin" in compiled.asm else "hsaco"
    binary = compiled.asm[kind]
    digest = hashlib.sha256(binary).hexdigest()
    return Artefact(specialization.name, target, kind, len(binary), digest, time.perf_counter() - start)


def for_gpus() -> tuple[Specialization, ...]:
    """The shipped kernels that a GPU can run."""
    return tuple(each for each in snapshots() if not 1 < dict(each.constants).get("ROWS", 1) < MINIMUM_ROWS)
