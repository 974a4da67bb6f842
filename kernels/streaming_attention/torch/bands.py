"""Boolean masks that the kernels can do without reading them: bands of keys.

A band is a run of keys, and in it query i sees those from ``i + offset - left`` to ``i + offset + right``. Causal masks
of any alignment, sliding windows, padding on either side and all of them together are bands; the kernels skip what they
hide. A mask is taken for the band that its first and last keys suggest, and only if it equals that band everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

UNBOUNDED = None


class Band(NamedTuple):
    """What one batch entry's queries see.

    ``first`` and ``stop`` bound the keys. Query i sees ``left`` keys before and ``right`` after key ``i + offset``,
    counted from `first`; None: all.
    """

    first: int
    stop: int
    offset: int
    left: int | None
    right: int | None


def bands_of(mask: torch.Tensor, batch: int, queries: int, keys: int) -> list[Band]:
    """The band of each batch entry; a single one if the mask doesn't differ among them.

    Raises
    ------
    TypeError, ValueError
        A mask that isn't boolean, doesn't fit the shape, differs among heads, or isn't a band.
    """
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(
            f"attn_mask: {kind} is not supported; allowed: None or a boolean tensor, true where a key is seen"
        )
    try:
        mask = torch.broadcast_to(mask, torch.broadcast_shapes(mask.shape, (1, 1, queries, keys)))
    except RuntimeError:
        mask = mask.new_empty(0)
    if mask.ndim != 4 or mask.shape[0] not in (1, batch) or mask.shape[2:] != (queries, keys):
        raise ValueError(f"attn_mask: its shape can't be spread to ({batch}, heads, {queries}, {keys})")
    if mask.stride(1) and not (mask == mask[:, :1]).all():
        raise ValueError("attn_mask: differs among heads; allowed: one mask for all heads of a batch entry")
    entries = mask[:1, 0] if mask.stride(0) == 0 else mask[:, 0]
    return [_band_of(entry, place) for place, entry in enumerate(entries)]


def _band_of(mask: torch.Tensor, place: int) -> Band:
    """The band that equals a (queries, keys) mask."""
    seen = torch.nonzero(mask.any(0))
    if not len(seen):
        return Band(0, 0, 0, UNBOUNDED, UNBOUNDED)
    first, stop = int(seen[0]), int(seen[-1]) + 1
    inner = mask[:, first:stop]
    band = Band(first, stop, *_view_of(inner))
    if not torch.equal(inner, _band_mask(band, len(mask))):
        raise ValueError(
            f"attn_mask: entry {place} is not a band of keys; allowed: a run of keys, in it causal or sliding windows "
            "that move by one key from a query to the next"
        )
    return band


def _view_of(mask: torch.Tensor) -> tuple[int, int | None, int | None]:
    """Offset, left and right that rows cut off at neither end of the keys suggest."""
    keys = mask.shape[1]
    rows = torch.nonzero(mask.any(1))[:, 0]
    numbers = mask[rows].to(torch.uint8)
    starts, stops = numbers.argmax(1), keys - numbers.flip(1).argmax(1)
    ends, begins = torch.nonzero(stops < keys), torch.nonzero(starts > 0)
    offset = int(stops[ends[0]] - 1 - rows[ends[0]]) if len(ends) else keys
    right = 0 if len(ends) else UNBOUNDED
    if not len(ends) and rows[0] > 0:  # rows that see nothing come before the first key
        offset, right = -int(rows[0]), 0
    left = int(rows[begins[0]] + offset - starts[begins[0]]) if len(begins) else UNBOUNDED
    return offset, left, right


def _band_mask(band: Band, queries: int) -> torch.Tensor:
    """The (queries, keys of the run) mask that a band stands for."""
    distance = torch.arange(band.stop - band.first) - (torch.arange(queries)[:, None] + band.offset)
    mask = torch.ones_like(distance, dtype=torch.bool)
    if band.left is not None:
        mask &= distance >= -band.left
    if band.right is not None:
        mask &= distance <= band.right
    return mask
