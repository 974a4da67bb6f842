"""Attention by Triton kernels on NumPy arrays or CPU tensors: what :mod:`kernels` offers, callable.

Shapes are (batch, heads, tokens, head_dim), any strides whose last is one. ``lse`` is (batch, heads, queries) f32, the
natural logarithm of the softmax's denominator, -inf where a query sees no key (its output is 0).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streaming_attention.triton import specializations as known
from streaming_attention.triton.arrays import View, empty_like, view
from streaming_attention.triton.prebuilt import kernel

LOG2E = 1.4426950408889634
SPLIT = 1024
"""Keys of a part of a decode; a constant, so that bits don't depend on threads."""


def attention(q, k, v, *, causal: bool = False, scale: float | None = None, return_lse: bool = False):
    """Softmax attention of many queries.

    Parameters
    ----------
    q : array, (batch, heads, queries, head_dim)
    k, v : array, (batch, kv_heads, keys, head_dim)
        ``kv_heads`` divides ``heads``. float32, float16 or bfloat16 (uint16 stands for it in NumPy).
    causal : bool
        Query i sees keys j <= i + keys - queries.
    scale : float, optional
        head_dim ** -0.5 by default.
    return_lse : bool

    Returns
    -------
    array like ``q``, and with ``return_lse`` the lse.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Examples
    --------
    >>> q = k = v = np.ones((1, 2, 3, 64), np.float32)
    >>> attention(q, k, v).shape
    (1, 2, 3, 64)
    """
    out, lse = empty_like(q), np.empty(tuple(q.shape[:3]), np.float32)
    prepare_attention(q, k, v, out, lse, causal=causal, scale=scale)()
    return (out, lse) if return_lse else out


def prepare_attention(q, k, v, out, lse, *, causal: bool, scale: float | None) -> Callable[[], None]:
    """The same as a call without arguments that may be repeated; tensors are read anew each time."""
    views = [view(name, tensor) for name, tensor in (("q", q), ("k", k), ("v", v), ("out", out))]
    batch, heads, queries, head_dim, kv_heads, keys = check_shapes(*views[:3])
    block = known.head_block(head_dim)
    rows = known.BLOCK_M if queries > known.SHORT_M else known.SHORT_M
    even = head_dim == block and rows == known.BLOCK_M
    run = kernel(known.prefill(views[0].dtype, block, even, block_m=rows))
    scalars = (queries, keys, heads // kv_heads, int(causal), head_dim, scale_of(scale, head_dim) * LOG2E)
    strides = [stride for part in views for stride in part.strides[:3]]
    addresses = [part.address for part in views]
    values = [*addresses, view("lse", lse).address, 0, 0, *strides, heads * queries, queries, *scalars]
    grid = (-(-queries // rows), heads, batch)
    held = (q, k, v, out, lse)
    return lambda: run.launch(grid, values) if held and 0 not in grid else None


def attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal: bool = False, scale: float | None = None,
                     return_lse: bool = False):  # fmt: skip
    """Attention of sequences laid end to end.

    Parameters
    ----------
    q : array, (tokens, heads, head_dim)
    k, v : array, (tokens, kv_heads, head_dim)
    cu_seqlens_q, cu_seqlens_k : array of int32, (sequences + 1,)
        Where each sequence begins, and the end.

    Returns
    -------
    array like ``q``, and with ``return_lse`` the lse, (heads, tokens).
    """
    out, lse = empty_like(q), np.full((q.shape[1], q.shape[0]), -np.inf, np.float32)
    views = [view(name, tensor) for name, tensor in (("q", q), ("k", k), ("v", v), ("out", out))]
    as_batch = [
        View(p.address, (1, p.shape[1], p.shape[0], p.shape[2]), (0, p.strides[1], p.strides[0], 1), p.dtype)
        for p in views
    ]
    _, heads, queries, head_dim, kv_heads, keys = check_shapes(*as_batch[:3])
    starts = [_starts(name, values, total) for name, values, total in
              (("cu_seqlens_q", cu_seqlens_q, queries), ("cu_seqlens_k", cu_seqlens_k, keys))]  # fmt: skip
    if starts[0].size != starts[1].size:
        raise ValueError(f"cu_seqlens_k: {starts[1].size} offsets, cu_seqlens_q has {starts[0].size}")
    run = kernel(known.prefill(views[0].dtype, known.head_block(head_dim), False, ragged=True))
    longest = int(np.diff(starts[0]).max(initial=0))
    grid = (-(-longest // known.BLOCK_M), heads, starts[0].size - 1)
    strides = [stride for part in as_batch for stride in part.strides[:3]]
    if 0 not in grid:
        run(grid, *(part.address for part in as_batch), lse, *starts, *strides, 0, queries, queries, keys,
            heads // kv_heads, int(causal), head_dim, scale_of(scale, head_dim) * LOG2E)  # fmt: skip
    return (out, lse) if return_lse else out


def _starts(name: str, values, total: int) -> np.ndarray:
    starts = np.ascontiguousarray(values, np.int32)
    if starts.ndim != 1 or starts.size < 2 or starts[0] != 0 or starts[-1] != total or (np.diff(starts) < 0).any():
        raise ValueError(f"{name}: must rise from 0 to {total}")
    return starts


def decode(q, k, v, *, causal: bool = True, scale: float | None = None, return_lse: bool = False):
    """Attention of few queries over many keys, keys split over threads.

    Shapes as in :func:`attention`; queries x (heads / kv_heads) is at most 32.
    """
    out, lse = empty_like(q), np.empty(tuple(q.shape[:3]), np.float32)
    prepare_decode(q, k, v, out, lse, causal=causal, scale=scale)()
    return (out, lse) if return_lse else out


def prepare_decode(q, k, v, out, lse, *, causal: bool, scale: float | None, split: int = SPLIT) -> Callable[[], None]:
    """The same as a call without arguments that may be repeated."""
    views = [view(name, tensor) for name, tensor in (("q", q), ("k", k), ("v", v))]
    batch, heads, queries, head_dim, kv_heads, keys = check_shapes(*views)
    pools = (0, 0, 0, 0)
    return _decode(views, view("out", out), lse, (q, k, v, out), (batch, heads, queries, head_dim, kv_heads, keys),
                   causal, scale, split, pools, 0)  # fmt: skip


def paged_decode(q, k_pages, v_pages, block_table, lengths, *, causal: bool = True, scale: float | None = None,
                 return_lse: bool = False):  # fmt: skip
    """Decode with keys and values in pages.

    Parameters
    ----------
    q : array, (batch, heads, queries, head_dim)
    k_pages, v_pages : array, (pages, kv_heads, page_size, head_dim)
        ``page_size`` is a multiple of 16.
    block_table : array of int32, (batch, pages of a sequence)
        Which page holds which part of a sequence.
    lengths : array of int32, (batch,)
    """
    views = [view(name, tensor) for name, tensor in (("q", q), ("k_pages", k_pages), ("v_pages", v_pages))]
    batch, heads, queries, head_dim = views[0].shape
    pages, kv_heads, page, _ = views[1].shape
    if page % known.PAGES[0]:
        raise ValueError(f"k_pages: page size {page} is not a multiple of {known.PAGES[0]}")
    table, lengths = np.ascontiguousarray(block_table, np.int32), np.ascontiguousarray(lengths, np.int32)
    if table.shape[0] != batch or lengths.shape != (batch,):
        raise ValueError(f"block_table, lengths: {table.shape[0]} and {lengths.size} sequences, q has {batch}")
    if lengths.size and int(lengths.max()) > table.shape[1] * page:
        raise ValueError(f"lengths: {int(lengths.max())} keys don't fit {table.shape[1]} pages of {page}")
    if table.size and not (table.min() >= 0 and table.max() < pages):
        raise ValueError(f"block_table: pages must lie in 0 .. {pages - 1}")
    _check_heads(heads, kv_heads)
    out, lse = empty_like(q), np.empty((batch, heads, queries), np.float32)
    block = next(size for size in reversed(known.PAGES) if page % size == 0)
    keys = int(lengths.max(initial=0))
    paging = (table.ctypes.data, lengths.ctypes.data, table.shape[1], page)
    held = (q, k_pages, v_pages, table, lengths)
    _decode(views, view("out", out), lse, held, (batch, heads, queries, head_dim, kv_heads, keys), causal, scale,
            -(-SPLIT // page) * page, paging, block)()  # fmt: skip
    return (out, lse) if return_lse else out


def _decode(views, out: View, lse, held, sizes, causal, scale, split, paging, page_block) -> Callable[[], None]:
    """Parts, then their merge."""
    batch, heads, queries, head_dim, kv_heads, keys = sizes
    group, block = heads // kv_heads, known.head_block(head_dim)
    rows = next((size for size in known.ROWS if size >= group * queries), None)
    if rows is None:
        raise ValueError(f"q: {queries} queries x {group} heads of a K/V head are more than {known.ROWS[-1]} rows")
    parts = max(1, -(-keys // split))
    part_out = np.empty((batch, kv_heads, parts, group * queries, head_dim), np.float32)
    part_lse = np.empty(part_out.shape[:-1], np.float32)
    first = kernel(known.decode(views[0].dtype, block, rows, head_dim == block, page_block))
    second = kernel(known.merge(views[0].dtype, block))
    table, lengths, stride_table, page = paging
    strides = [stride for part in views for stride in part.strides[:3]]
    values = [*(part.address for part in views), part_out.ctypes.data, part_lse.ctypes.data, table, lengths, *strides,
              stride_table, queries, keys, group, int(causal), head_dim,
              scale_of(scale, head_dim) * LOG2E, split, page]  # fmt: skip
    merging = [part_out.ctypes.data, part_lse.ctypes.data, out.address, lse.ctypes.data, *out.strides[:3],
               heads * queries, queries, parts, queries, group, head_dim]  # fmt: skip
    grids = ((parts, kv_heads, batch), (group * queries, kv_heads, batch))
    keep = (held, part_out, part_lse, lse)

    def run() -> None:
        if keep and 0 not in grids[1]:
            first.launch(grids[0], values)
            second.launch(grids[1], merging)

    return run


def attention_backward(grad, q, k, v, out, lse, *, causal: bool = False, scale: float | None = None):
    """Gradients of :func:`attention`.

    Parameters
    ----------
    grad : array like ``q``
        Gradient of the output.
    out, lse
        What :func:`attention` returned.

    Returns
    -------
    tuple
        Gradients of q, k and v. Inputs are made contiguous first.
    """
    grad, q, k, v, out = (_contiguous(tensor) for tensor in (grad, q, k, v, out))
    views = {
        name: view(name, tensor)
        for name, tensor in zip(("grad", "q", "k", "v", "out"), (grad, q, k, v, out), strict=True)
    }
    batch, heads, queries, head_dim, kv_heads, keys = check_shapes(views["q"], views["k"], views["v"])
    block, dtype, tile = known.head_block(head_dim), views["q"].dtype, known.BACKWARD_BLOCK
    grads, delta = [empty_like(tensor) for tensor in (q, k, v)], np.empty((batch, heads, queries), np.float32)
    lse = np.nan_to_num(np.ascontiguousarray(lse, np.float32), neginf=0.0)
    strides_q, strides_k = views["q"].strides[:3], views["k"].strides[:3]
    blocks_q, blocks_k = (-(-queries // tile), heads, batch), (-(-keys // tile), kv_heads, batch)
    sizes = (queries, keys, heads // kv_heads, int(causal), head_dim, scale_of(scale, head_dim))
    kernel(known.backward("row_sums", dtype, block))(blocks_q, out, grad, delta, *strides_q, queries, head_dim)
    common = (q, k, v, grad, lse, delta)
    kernel(known.backward("keys_gradient", dtype, block))(blocks_k, *common, *grads[1:], *strides_q, *strides_k, *sizes)
    kernel(known.backward("queries_gradient", dtype, block))(
        blocks_q, *common, grads[0], *strides_q, *strides_k, *sizes
    )
    return tuple(grads)


def _contiguous(tensor):
    return np.ascontiguousarray(tensor) if isinstance(tensor, np.ndarray) else tensor.contiguous()


def check_shapes(q: View, k: View, v: View) -> tuple[int, int, int, int, int, int]:
    """(batch, heads, queries, head_dim, kv_heads, keys).

    Raises
    ------
    ValueError
        Naming the tensor that doesn't fit.
    """
    for name, part in (("q", q), ("k", k), ("v", v)):
        if len(part.shape) != 4:
            raise ValueError(f"{name}: {len(part.shape)} axes, needs (batch, heads, tokens, head_dim)")
        if part.dtype != q.dtype:
            raise ValueError(f"{name}: {part.dtype}, q is {q.dtype}")
    batch, heads, queries, head_dim = q.shape
    _, kv_heads, keys, _ = k.shape
    if k.shape != (batch, kv_heads, keys, head_dim) or v.shape != k.shape:
        raise ValueError(f"k, v: shapes {k.shape} and {v.shape} don't fit q's {q.shape}")
    _check_heads(heads, kv_heads)
    return batch, heads, queries, head_dim, kv_heads, keys


def _check_heads(heads: int, kv_heads: int) -> None:
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"q: {heads} heads are not a multiple of the {kv_heads} K/V heads")


def scale_of(scale: float | None, head_dim: int) -> float:
    """The factor on the logits, head_dim ** -0.5 unless given."""
    return head_dim**-0.5 if scale is None else float(scale)
