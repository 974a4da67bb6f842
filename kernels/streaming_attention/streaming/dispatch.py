"""Which of our kernels a call gets, and on how many threads: crossovers measured by ``benchmarks/crossovers.py``.

Light to import: plans ask.
"""

from __future__ import annotations

FEW_ROWS, FEW_ROWS_ALONE = 12, 24
"""Query rows per K/V head below which lanes run along head_dim (decode) instead of along rows (prefill): for several
queries, whose masks cut through their keys, and bfloat16, which prefill multiplies faster; for a single fp32 query."""


def is_few(group: int, queries: int, all_bf16: bool = False) -> bool:
    """Whether so few rows share a K/V head that the decode kernel serves them.

    Parameters
    ----------
    group : int
        Query heads of a K/V head.
    queries : int
    all_bf16 : bool
        Whether q, k and v are bfloat16.
    """
    return group * queries < (FEW_ROWS if queries > 1 or all_bf16 else FEW_ROWS_ALONE)


ALONE = 1 << 20
"""Work, multiply-adds of Q K^T, below which waking a second thread costs more than it saves."""


def choose_threads(work: int, threads: int) -> int:
    """Threads for a call: those given, one where the call is over before another has woken up."""
    return threads if work > ALONE else 1
