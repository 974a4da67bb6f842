"""The same kernels compiled ahead of time for GPUs, on a machine that has none. Compiled is all that this shows."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from streaming_attention.triton import specializations as known

TARGETS = {
    "sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64), "gfx1100": ("hip", "gfx1100", 32),
}  # fmt: skip
"""Triton's backend, architecture and warp size by the target's usual name."""

KERNELS = (
    known.prefill("bf16", 64, True, block_n=64), known.prefill("bf16", 128, True, block_n=64),
    known.prefill("bf16", 128, False, ragged=True, block_n=64),
    known.decode("bf16", 128, 16, True, block_n=64), known.decode("bf16", 128, 16, True, 64),
    known.merge("bf16", 128), known.backward("row_sums", "bf16", 64),
    known.backward("keys_gradient", "bf16", 64), known.backward("queries_gradient", "bf16", 64),
)  # fmt: skip
"""Every kernel in each of its forms, in the precision that GPUs are used in and tiles that fit them."""


@dataclass(frozen=True)
class Binary:
    """A kernel's machine code: its kind, ``cubin`` or ``hsaco``, and its bytes."""

    kind: str
    code: bytes


def triton_version() -> str | None:
    """The release that is installed; None without one."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def compile_for(specialization: known.Specialization, target: str) -> Binary:
    """Compile one kernel for one GPU; needs Triton, no GPU.

    Raises
    ------
    ValueError
        Unknown target.
    """
    if target not in TARGETS:
        raise ValueError(f"target {target!r}: allowed are {', '.join(TARGETS)}")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import compile

    options = {"num_warps": 4, "num_stages": 1}
    compiled = compile(source_of(specialization), target=GPUTarget(*TARGETS[target]), options=options)
    kind = "cubin" if "cubin" in compiled.asm else "hsaco"
    return Binary(kind, compiled.asm[kind])


def source_of(specialization: known.Specialization):
    """A kernel's source with its types and constants, as Triton's compiler takes it."""
    from triton.compiler import ASTSource

    module = importlib.import_module(f"streaming_attention.triton.kernels.{specialization.module}")
    function = getattr(module, specialization.function)
    return ASTSource(function, dict(specialization.signature), dict(specialization.constants), {})
