"""Attention by Triton kernels on NumPy arrays or CPU tensors of torch: many queries, sequences end to end, gradients.

Shapes are (batch, heads, tokens, head_dim), any strides whose last is one. ``lse`` is (batch, heads, queries) f32, the
natural logarithm of the softmax's denominator, -inf where a query sees no key (its output is 0). Few queries over many
keys: :mod:`decoding`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streaming_attention.triton import specializations as known
from streaming_attention.triton.arguments import LOG2E, check_shapes, check_starts, scale_of, strides_of, views_of
from streaming_attention.triton.arrays import View, empty_like
from streaming_attention.triton.cpu.target import BEST
from streaming_attention.triton.prebuilt import kernel


def attention(q, k, v, *, causal: bool = False, scale: float | None = None, threads: int | None = None,
              return_lse: bool = False):  # fmt: skip
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
    threads : int, optional
        All that the process has by default.
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
    prepare_attention(q, k, v, out, lse, causal=causal, scale=scale, threads=threads)()
    return (out, lse) if return_lse else out


def prepare_attention(q, k, v, out, lse, *, causal: bool, scale: float | None, threads: int | None = None,
                      isa: str = BEST) -> Callable[[], None]:  # fmt: skip
    """The same as a call without arguments that may be repeated; tensors are read anew each time."""
    views = views_of(q=q, k=k, v=v, out=out)
    sizes = check_shapes(*views[:3])
    heads, queries, head_dim = sizes.heads, sizes.queries, sizes.head_dim
    block = known.head_block(head_dim)
    rows, pair = known.prefill_tile(queries, head_dim)
    even = head_dim == block and rows != known.SHORT_M
    run = kernel(known.prefill(views[0].dtype, block, even, pair=pair, block_m=rows), isa)
    scalars = (queries, sizes.keys, sizes.group, int(causal), head_dim, scale_of(scale, head_dim) * LOG2E)
    addresses = [part.address for part in (*views, *views_of(lse=lse))]
    values = [*addresses, 0, 0, *strides_of(views), heads * queries, queries, *scalars]
    grid = (-(-queries // (2 * rows if pair else rows)), heads, sizes.batch)
    held = (q, k, v, out, lse)
    return lambda: run.launch(grid, values, threads) if held and 0 not in grid else None


def attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, *, causal: bool = False, scale: float | None = None,
                     threads: int | None = None, return_lse: bool = False):  # fmt: skip
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
    views = [_as_batch(part) for part in views_of(q=q, k=k, v=v, out=out)]
    sizes = check_shapes(*views[:3])
    queries, keys, head_dim = sizes.queries, sizes.keys, sizes.head_dim
    starts_q = check_starts("cu_seqlens_q", cu_seqlens_q, queries)
    starts_k = check_starts("cu_seqlens_k", cu_seqlens_k, keys)
    if starts_q.size != starts_k.size:
        raise ValueError(f"cu_seqlens_k: {starts_k.size} offsets, cu_seqlens_q has {starts_q.size}")
    run = kernel(known.prefill(views[0].dtype, known.head_block(head_dim), False, ragged=True))
    longest = int(np.diff(starts_q).max(initial=0))
    grid = (-(-longest // known.BLOCK_M), sizes.heads, starts_q.size - 1)
    scalars = (queries, keys, sizes.group, int(causal), head_dim, scale_of(scale, head_dim) * LOG2E)
    if 0 not in grid:
        addresses = (part.address for part in views)
        run(grid, *addresses, lse, starts_q, starts_k, *strides_of(views), 0, queries, *scalars, threads=threads)
    return (out, lse) if return_lse else out


def _as_batch(part: View) -> View:
    """(tokens, heads, head_dim) as a batch of one, heads before tokens."""
    tokens, heads, head_dim = part.shape
    return View(part.address, (1, heads, tokens, head_dim), (0, part.strides[1], part.strides[0], 1), part.dtype)


def attention_backward(grad, q, k, v, out, lse, *, causal: bool = False, scale: float | None = None,
                       threads: int | None = None):  # fmt: skip
    """Gradients of :func:`attention`.

    Parameters
    ----------
    grad, q, k, v, out : array
        ``grad`` is the gradient of the result ``out``; all of one element type, made contiguous first.
    lse : array, (batch, heads, queries), float32
        As :func:`attention` returned it.

    Returns
    -------
    tuple
        Gradients of q, k and v.
    """
    grad, q, k, v, out = (_contiguous(tensor) for tensor in (grad, q, k, v, out))
    views = views_of(q=q, k=k, v=v, out=out, grad=grad)
    sizes = check_shapes(*views[:3])
    batch, heads, queries, head_dim, kv_heads, keys = sizes
    grads, delta = [empty_like(tensor) for tensor in (q, k, v)], np.empty((batch, heads, queries), np.float32)
    lse = np.nan_to_num(np.ascontiguousarray(lse, np.float32), neginf=0.0)
    strides_q, strides_k = views[0].strides[:3], views[1].strides[:3]
    blocks_q, blocks_k = ((-(-count // known.BACKWARD_BLOCK)) for count in (queries, keys))
    scalars = (queries, keys, sizes.group, int(causal), head_dim, scale_of(scale, head_dim))
    common = (q, k, v, grad, lse, delta)

    def run(name: str, grid: tuple[int, ...], *arguments) -> None:
        if 0 not in grid:
            kernel(known.backward(name, views[0].dtype, known.head_block(head_dim)))(grid, *arguments, threads=threads)

    run("row_sums", (blocks_q, heads, batch), out, grad, delta, *strides_q, queries, head_dim)
    run("keys_gradient", (blocks_k, kv_heads, batch), *common, *grads[1:], *strides_q, *strides_k, *scalars)
    run("queries_gradient", (blocks_q, heads, batch), *common, grads[0], *strides_q, *strides_k, *scalars)
    return tuple(grads)


def _contiguous(tensor):
    return np.ascontiguousarray(tensor) if isinstance(tensor, np.ndarray) else tensor.contiguous()
