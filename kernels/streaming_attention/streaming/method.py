"""The streaming kernels as a method of the registry: a call with everything allocated, to be repeated."""

from __future__ import annotations

import numpy as np

from streaming_attention.prepared import COMPUTE, Prepared
from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming.front import run_decode, run_prefill

FEW_ROWS = 16
"""Rows per K/V head below which lanes run along head_dim (decode) instead of along rows (prefill)."""


def prepare(inputs, threads, comm, options):
    """Allocate the output; see :class:`~streaming_attention.prepared.Prepared`."""
    workload = inputs.workload
    isa = select_isa(options.get("isa"))
    output = np.empty(inputs.q.shape, np.float32)
    rows = workload.queries * (workload.heads // workload.kv_heads)
    run, name = (run_decode, "decode") if rows < FEW_ROWS else (run_prefill, "prefill")

    def compute():
        run(inputs.q, inputs.k, inputs.v, output, causal=workload.causal, threads=threads, isa=isa)

    return Prepared([(COMPUTE, compute)], output, f"streaming.{name} {isa.name}")
