"""Transpose a square of vectors in registers: log2(n) rounds of two-input shuffles."""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import Builder, V


def transpose(b: Builder, rows: list[V]) -> list[V]:
    """Columns of a square given by rows; its size is a power of two.

    Each round swaps, between rows that are ``half`` apart, the blocks of ``half`` lanes off the diagonal; after the
    rounds half = n/2, n/4, ..., 1 the whole square is transposed.
    """
    size = len(rows)
    half = size // 2
    while half:
        rows = _round(b, rows, half)
        half //= 2
    return rows


def _round(b: Builder, rows: list[V], half: int) -> list[V]:
    size = len(rows)
    low = [lane + size - half if lane & half else lane for lane in range(size)]
    high = [lane + size if lane & half else lane + half for lane in range(size)]
    result = list(rows)
    for place in range(size):
        if not place & half:
            result[place] = b.shuffle(rows[place], rows[place + half], low)
            result[place + half] = b.shuffle(rows[place], rows[place + half], high)
    return result
