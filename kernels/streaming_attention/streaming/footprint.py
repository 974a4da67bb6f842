"""Which vector kernel a workload gets, and the memory it needs; light to import, since plans ask.

Sizes are those of the widest instruction set (AVX-512), an upper bound for the others; a test holds them against
what the kernels really allocate.
"""

from __future__ import annotations

from streaming_attention.dtypes import DTYPES
from streaming_attention.streaming.dispatch import is_few
from streaming_attention.workload import Workload

BEST = "best"
ISA_NAMES = (BEST, "avx512", "avx2", "portable")
"""Instruction sets that a caller may force; ``best`` is the widest that this CPU runs."""

_LANES, _WIDTH, _TILE_ROWS = 16, 48, 8
_STRIPS, _UNITS = 8, 9
_SPLIT, _PANEL, _PAGE = 1024, 1024, 4096
_RUN, _UNIT, _AHEAD = 16, 40, 4


def rows_per_head(workload: Workload) -> int:
    """Query rows that share a K/V head."""
    return workload.heads // workload.kv_heads * workload.queries


def is_decode(workload: Workload) -> bool:
    """Whether so few rows share a K/V head that the decode kernel serves it."""
    return is_few(workload.heads // workload.kv_heads, workload.queries, workload.dtype == "bf16")


def workspace(workload: Workload, threads: int, *, isa: str = BEST, block: int = 128, ranks: int = 1) -> int:
    """Bytes of the rank that holds most, beyond Q, K, V and O: O(threads x head_dim + rows x head_dim x splits).

    Scratch of every thread, log-sum-exp of every row; in decode the results of the splits of the keys; over ranks the
    states that travel.
    """
    rows = rows_per_head(workload)
    heads = workload.batch * workload.kv_heads
    d = workload.head_dim
    scratch = _decode_scratch(d, rows) if is_decode(workload) else _prefill_scratch(d, block, workload.dtype)
    splits = max(1, -(-workload.keys // ranks // _SPLIT))
    partial = heads * splits * rows * (workload.head_dim + _LANES + 2) if is_decode(workload) and splits > 1 else 0
    states = heads * rows * (workload.head_dim + 2) * (ranks > 1)
    floats = partial + heads * rows + states
    return threads * (scratch + 3 * _PAGE) + floats * DTYPES["fp32"] + 8 * heads


def _prefill_scratch(head_dim: int, block: int, dtype: str) -> int:
    """A block of scores, and strips with Q, O and a few single rows each. fp32 K and V are read where they lie, others
    copied block by block."""
    depth = max(head_dim, _LANES)
    strip = _UNITS + 2 * depth + _TILE_ROWS + depth // _WIDTH + 1
    copies = 0 if dtype == "fp32" else 4 * (2 * block + 2) * -(-depth // _LANES) * _LANES
    return 4 * _WIDTH * (max(block + _TILE_ROWS, depth) + _STRIPS * strip) + copies


def _decode_scratch(head_dim: int, rows: int) -> int:
    """Q, O, state and a panel of scores of every row, a run of widened keys, a panel's units."""
    width = -(-head_dim // _LANES) * _LANES
    floats = (2 * width + 2 + _PANEL) * rows + 16 + _RUN * width
    return 4 * floats + _UNIT * (_PANEL // _RUN + _AHEAD)
