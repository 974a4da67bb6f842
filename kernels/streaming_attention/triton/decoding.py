"""Attention of few queries over many keys by Triton kernels: keys split into parts, a program each, then merged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from streaming_attention.triton import specializations as known
from streaming_attention.triton.arguments import LOG2E, Sizes, check_heads, check_shapes, scale_of, strides_of, views_of
from streaming_attention.triton.arrays import View, empty_like
from streaming_attention.triton.cpu.target import BEST
from streaming_attention.triton.footprint import SPLIT
from streaming_attention.triton.prebuilt import kernel


def decode(q, k, v, *, causal: bool = True, scale: float | None = None, threads: int | None = None,
           return_lse: bool = False):  # fmt: skip
    """Attention of few queries over many keys.

    Arguments as of :func:`~.attention.attention`; queries x (heads / kv_heads) is at most 32.
    """
    out, lse = empty_like(q), np.empty(tuple(q.shape[:3]), np.float32)
    prepare_decode(q, k, v, out, lse, causal=causal, scale=scale, threads=threads)()
    return (out, lse) if return_lse else out


def prepare_decode(q, k, v, out, lse, *, causal: bool, scale: float | None, threads: int | None = None,
                   isa: str = BEST) -> Callable[[], None]:  # fmt: skip
    """The same as a call without arguments that may be repeated; tensors are read anew each time."""
    views = views_of(q=q, k=k, v=v, out=out)
    steps = _Steps(check_shapes(*views[:3]), views, causal, scale, _Pages())
    return steps.bind((q, k, v, out, lse), views_of(lse=lse)[0], threads, isa)


def decode_paged(q, k_pages, v_pages, block_table, seqlens, *, causal: bool = True, scale: float | None = None,
                 threads: int | None = None, return_lse: bool = False):  # fmt: skip
    """Decode with keys and values in pages.

    Parameters
    ----------
    q : array, (batch, heads, queries, head_dim)
    k_pages, v_pages : array, (pages, kv_heads, page_size, head_dim)
        ``page_size`` is a multiple of 16.
    block_table : array of int32, (batch, pages of a sequence)
        Which page holds which part of a sequence.
    seqlens : array of int32, (batch,)
        Keys of each sequence.
    """
    out, lse = empty_like(q), np.empty(tuple(q.shape[:3]), np.float32)
    views = views_of(q=q, k_pages=k_pages, v_pages=v_pages, out=out)
    batch, heads, queries, head_dim = views[0].shape
    pages, kv_heads, page, _ = views[1].shape
    check_heads(heads, kv_heads)
    table, lengths = np.ascontiguousarray(block_table, np.int32), np.ascontiguousarray(seqlens, np.int32)
    _check_pages(batch, pages, page, table, lengths)
    sizes = Sizes(batch, heads, queries, head_dim, kv_heads, int(lengths.max(initial=0)))
    steps = _Steps(sizes, views, causal, scale, _Pages(table, lengths, page))
    steps.bind((q, k_pages, v_pages, out, lse), views_of(lse=lse)[0], threads)()
    return (out, lse) if return_lse else out


def _check_pages(batch: int, pages: int, page: int, table: np.ndarray, lengths: np.ndarray) -> None:
    if page % known.PAGES[0]:
        raise ValueError(f"k_pages: page size {page} is not a multiple of {known.PAGES[0]}")
    if table.ndim != 2 or table.shape[0] != batch or lengths.shape != (batch,):
        raise ValueError(f"block_table, seqlens: {table.shape} and {lengths.shape}, q has {batch} sequences")
    if lengths.size and not 0 <= int(lengths.min()) <= int(lengths.max()) <= table.shape[1] * page:
        raise ValueError(f"seqlens: {lengths.tolist()} don't fit {table.shape[1]} pages of {page} keys")
    if table.size and not 0 <= int(table.min()) <= int(table.max()) < pages:
        raise ValueError(f"block_table: pages must lie in 0 .. {pages - 1}")


class _Pages(NamedTuple):
    """Where the pages of keys and values lie; without pages of size 0."""

    table: np.ndarray | None = None
    lengths: np.ndarray | None = None
    size: int = 0


class _Steps:
    """A decode's two launches, the parts and their merge, with the results of the parts between them."""

    def __init__(self, sizes: Sizes, views: list[View], causal: bool, scale: float | None, pages: _Pages):
        self.sizes, self.views, self.pages = sizes, views, pages
        self.causal, self.scale = int(causal), scale_of(scale, sizes.head_dim) * LOG2E
        page = pages.size
        self.split = -(-SPLIT // page) * page if page else SPLIT
        self.parts = max(1, -(-sizes.keys // self.split))
        self.rows = sizes.group * sizes.queries
        shape = (sizes.batch, sizes.kv_heads, self.parts, self.rows)
        self.part_out = np.empty((*shape, sizes.head_dim), np.float32)
        self.part_lse = np.empty(shape, np.float32)

    def bind(self, held: tuple, lse: View, threads: int | None, isa: str = BEST) -> Callable[[], None]:
        """Both launches as one call without arguments; it keeps ``held`` alive."""
        first, second = (kernel(each, isa) for each in self._specializations())
        values, merging, sizes = self._values(), self._merging(lse), self.sizes
        grids = ((self.parts, sizes.kv_heads, sizes.batch), (self.rows, sizes.kv_heads, sizes.batch))
        keep = (self, held)

        def run() -> None:
            if keep and 0 not in grids[1]:
                first.launch(grids[0], values, threads)
                second.launch(grids[1], merging, threads)

        return run

    def _specializations(self) -> tuple[known.Specialization, known.Specialization]:
        sizes, dtype = self.sizes, self.views[0].dtype
        block = known.head_block(sizes.head_dim)
        rows = next((size for size in known.ROWS if size >= self.rows), None)
        if rows is None:
            most = known.ROWS[-1]
            raise ValueError(f"q: {sizes.queries} queries x {sizes.group} heads of a K/V head are over {most} rows")
        page = self.pages.size
        paged = next(size for size in reversed(known.PAGES) if page % size == 0) if page else 0
        return known.decode(dtype, block, rows, sizes.head_dim == block, paged), known.merge(dtype, block)

    def _values(self) -> list:
        """Arguments of the parts' kernel."""
        sizes, inputs = self.sizes, self.views[:3]
        table, lengths, page = self.pages
        paging = (table.ctypes.data, lengths.ctypes.data) if page else (0, 0)
        table_stride = table.shape[1] if page else 0
        scalars = (sizes.queries, sizes.keys, sizes.group, self.causal, sizes.head_dim, self.scale)
        parts = (self.part_out.ctypes.data, self.part_lse.ctypes.data)
        addresses = [part.address for part in inputs]
        return [*addresses, *parts, *paging, *strides_of(inputs), table_stride, *scalars, self.split, page]

    def _merging(self, lse: View) -> list:
        """Arguments of the merge's kernel."""
        sizes, out = self.sizes, self.views[3]
        addresses = (self.part_out.ctypes.data, self.part_lse.ctypes.data, out.address, lse.address)
        lse_strides = (sizes.heads * sizes.queries, sizes.queries)
        return [*addresses, *out.strides[:3], *lse_strides, self.parts, sizes.queries, sizes.group, sizes.head_dim]
