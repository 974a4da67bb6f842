"""Which tokens each rank of a public call holds. Arithmetic alone."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence

import numpy as np

from streaming_attention.slices import Slice, key_slice, zigzag_slices

CONTIGUOUS, ZIGZAG = "contiguous", "zigzag"
PLACEMENTS = (CONTIGUOUS, ZIGZAG)
"""Tokens side by side in the order of the ranks, in shares of any lengths; an early and a late chunk on every rank."""


def rank_rows(tokens: int, rank: int, ranks: int, placement: str = CONTIGUOUS) -> np.ndarray:
    """The tokens that a rank holds, where they are shared out evenly.

    Parameters
    ----------
    tokens : int
        Of all ranks together.
    rank, ranks : int
    placement : str
        ``"contiguous"``; or ``"zigzag"``, the r-th of ``2 * ranks`` chunks from the front and the r-th from the back,
        so that a causal mask gives every rank the same work.

    Returns
    -------
    rows : ndarray of int, ascending
        To be used as an index: ``q[:, :, rank_rows(...)]``.

    Raises
    ------
    TypeError, ValueError
        A number that isn't whole or not in its range, an unknown placement.

    Examples
    --------
    >>> from streaming_attention import rank_rows
    >>> [rank_rows(8, rank, 2, "zigzag").tolist() for rank in range(2)]
    [[0, 1, 6, 7], [2, 3, 4, 5]]
    """
    numbers = {"tokens": tokens, "rank": rank, "ranks": ranks}
    for name, value in numbers.items():
        try:
            numbers[name] = operator.index(value)
        except TypeError:
            raise TypeError(f"{name}: {value!r} is not an integer") from None
        if value < (name == "ranks"):
            raise ValueError(f"{name}: {value}, must be at least {int(name == 'ranks')}")
    if rank >= ranks:
        raise ValueError(f"rank: {rank} is not from 0 to {ranks - 1}")
    if placement not in PLACEMENTS:
        raise ValueError(f"placement: {placement!r} is not known; allowed: {', '.join(PLACEMENTS)}")
    runs = zigzag_slices(**numbers) if placement == ZIGZAG else (key_slice(*numbers.values()),)
    return np.concatenate([np.arange(*run) for run in runs])


def runs_of(name: str, lengths: Sequence[int], placement: str) -> list[tuple[Slice, ...]]:
    """The tokens of every rank, from how many each holds.

    Parameters
    ----------
    name : str
        The array that is shared out, for the error.
    lengths : sequence of int
        By rank.

    Raises
    ------
    ValueError
        A zigzag whose shares are not the even ones: which tokens they are could not be told.
    """
    if placement == CONTIGUOUS:
        ends = itertools.accumulate(lengths, initial=0)
        return [(run,) for run in itertools.pairwise(ends)]
    tokens, ranks = sum(lengths), len(lengths)
    found = [zigzag_slices(tokens, rank, ranks) for rank in range(ranks)]
    for rank, (held, runs) in enumerate(zip(lengths, found, strict=True)):
        due = sum(stop - start for start, stop in runs)
        if held != due:
            raise ValueError(
                f"{name}: rank {rank} holds {held} of {tokens} tokens; with placement 'zigzag' it must hold the "
                f"{due} of rank_rows({tokens}, {rank}, {ranks}, 'zigzag')"
            )
    return found


def everywhere(name: str, lengths: Sequence[int]) -> list[tuple[Slice, ...]]:
    """The tokens of every rank, where all hold the same.

    Raises
    ------
    ValueError
        Ranks hold different numbers of them.
    """
    for rank, held in enumerate(lengths):
        if held != lengths[0]:
            raise ValueError(f"{name}: {held} rows on rank {rank}, {lengths[0]} on rank 0; must be the same on all")
    return [((0, held),) for held in lengths]
