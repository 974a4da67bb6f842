"""Which of our kernels a call gets, and on how many threads: crossovers measured by ``benchmarks/crossovers.py``.

Light to import: plans ask.
"""

from __future__ import annotations

FEW_ROWS = 16
"""Query rows per K/V head below which lanes run along head_dim (decode) instead of along rows (prefill)."""


def is_few(rows: int) -> bool:
    """Whether so few rows share a K/V head that the decode kernel serves them."""
    return rows < FEW_ROWS


ALONE = 1 << 20
"""Work, multiply-adds of Q K^T, below which waking a second thread costs more than it saves."""


def choose_threads(work: int, threads: int) -> int:
    """Threads for a call: those given, one where the call is over before another has woken up."""
    return threads if work > ALONE else 1
