"""Compile every Triton kernel for GPUs that this machine need not have, and write down what came of it."""

from __future__ import annotations

import hashlib
import time

from streaming_attention.triton.gpu import KERNELS, TARGETS, compile_for, triton_version

NAME = "gpu.json"
"""File in a campaign's folder."""


def compile_all() -> dict:
    """An entry for every kernel and target: ``compiled``, ``infeasible`` without Triton, or ``error``."""
    pairs = [(kernel, target) for kernel in KERNELS for target in TARGETS]
    return {"schema": 1, "triton": triton_version(), "kernels": [_entry(*pair) for pair in pairs]}


def _entry(kernel, target: str) -> dict:
    entry = {"kernel": kernel.name, "target": target}
    if triton_version() is None:
        return entry | {"status": "infeasible", "reason": "triton is not installed"}
    begin = time.perf_counter()
    try:
        binary = compile_for(kernel, target)
    except Exception as error:  # a compiler may fail in any way; the others' results stand
        return entry | {"status": "error", "reason": f"{type(error).__name__}: {error}".partition("\n")[0]}
    digest = hashlib.sha256(binary.code).hexdigest()
    seconds = time.perf_counter() - begin
    made = {"kind": binary.kind, "bytes": len(binary.code), "sha256": digest, "seconds": seconds}
    return entry | {"status": "compiled"} | made
