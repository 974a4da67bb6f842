"""Triton's kernels as methods of the registry: ``prepare(inputs, threads, comm, options) -> Prepared``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from streaming_attention.inputs import Inputs
from streaming_attention.prepared import COMPUTE, Prepared
from streaming_attention.triton.attention import prepare_attention
from streaming_attention.triton.cpu.target import BEST, make_target
from streaming_attention.triton.decoding import prepare_decode


def prepare_streaming(inputs: Inputs, threads: int, comm: None, options: Mapping) -> Prepared:
    """Attention of many queries on one rank; ``options`` may give ``isa``."""
    return _prepare(inputs, threads, options, prepare_attention, "triton.prefill")


def prepare_splits(inputs: Inputs, threads: int, comm: None, options: Mapping) -> Prepared:
    """Attention of few queries over many keys on one rank; ``options`` may give ``isa``."""
    return _prepare(inputs, threads, options, prepare_decode, "triton.decode")


def _prepare(inputs: Inputs, threads: int, options: Mapping, prepare, name: str) -> Prepared:
    out = np.empty_like(inputs.q)
    lse = np.empty(inputs.q.shape[:3], np.float32)
    isa = options.get("isa", BEST)
    arguments = {"causal": inputs.workload.causal, "scale": inputs.scale, "threads": threads, "isa": isa}
    run = prepare(inputs.q, inputs.k, inputs.v, out, lse, **arguments)
    return Prepared([(COMPUTE, run)], out, f"{name} {make_target(isa).name}", lse=lse)
