"""torch's ``scaled_dot_product_attention`` by the streaming kernels."""

from __future__ import annotations

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from streaming_attention.streaming.backward_front import run_backward
from streaming_attention.streaming.dispatch import choose_threads, is_few
from streaming_attention.streaming.front import run_decode, run_prefill
from streaming_attention.torch.bands import Band, bands_of
from streaming_attention.torch.views import as_array, check_tensors


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """Attention with the arguments and the meaning of ``torch.nn.functional.scaled_dot_product_attention``.

    Parameters
    ----------
    query : Tensor, (batch, heads, queries, head_dim) or (heads, queries, head_dim), on the CPU
        float32, bfloat16 or float16, any strides; its memory is read in place, as that of `key` and `value`.
    key, value : Tensor, (batch, kv_heads, keys, head_dim)
    attn_mask : boolean Tensor, spreading to (batch, heads, queries, keys), optional
        True where a key is seen. Must be the same for all heads and a band of keys in each batch entry: causal of any
        alignment, sliding windows, padding on either side (:mod:`.bands`). No bias is supported.
    dropout_p : float
        Must be 0.
    is_causal : bool
        Query i sees the keys j <= i, as torch aligns it: at the top left.
    scale : float, optional
        head_dim ** -0.5 unless given.
    enable_gqa : bool
        Let ``heads // kv_heads`` query heads share a K/V head; nothing is copied.

    Returns
    -------
    Tensor, as `query`
        Its memory is in the order (batch, queries, heads, head_dim), as torch's own. Rows that see no key are 0.
        Gradients flow to `query`, `key` and `value`, once; see :func:`streaming_attention.attention_backward`.

    Raises
    ------
    TypeError, ValueError
        What torch would refuse, and what these kernels can't do; the message names the argument.

    Notes
    -----
    Runs on ``torch.get_num_threads()`` threads, or on one where the call is too short for more; results don't depend
    on how many.
    """
    check_tensors(query=query, key=key, value=value)
    if query.ndim == 3:
        mask = attn_mask[None] if isinstance(attn_mask, torch.Tensor) and attn_mask.ndim == 3 else attn_mask
        tensors = (tensor[None] if tensor.ndim == 3 else tensor for tensor in (query, key, value))
        return scaled_dot_product_attention(*tensors, mask, dropout_p, is_causal, scale, enable_gqa)[0]
    _check_shapes(query, key, value, enable_gqa)
    if dropout_p != 0:
        raise ValueError(f"dropout_p: {dropout_p!r} is not supported; allowed: 0")
    bands = _bands(query, key, attn_mask, is_causal)
    scale = None if scale is None else float(scale)
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        return _Attention.apply(query, key, value, bands, scale)
    return _attend(query, key, value, bands, scale)[0]


def _check_shapes(query, key, value, enable_gqa) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4:
            raise ValueError(f"{name}: shape {tuple(tensor.shape)} is not (batch, heads, tokens, head_dim)")
    if key.shape != value.shape:
        raise ValueError(f"value: shape {tuple(value.shape)} differs from key's {tuple(key.shape)}")
    if key.shape[0] != query.shape[0] or key.shape[3] != query.shape[3]:
        raise ValueError(
            f"key: shape {tuple(key.shape)} doesn't fit query's {tuple(query.shape)}; batch and head_dim must be equal"
        )
    heads, kv_heads = query.shape[1], key.shape[1]
    if not enable_gqa and heads != kv_heads:
        raise ValueError(f"key: {kv_heads} heads for {heads} of query; allowed with enable_gqa=True")
    if 0 in (heads, kv_heads, query.shape[3]) or heads % kv_heads:
        raise ValueError(f"query: {heads} heads are not a multiple of the {kv_heads} heads of key, or head_dim is 0")


def _bands(query, key, attn_mask, is_causal) -> list[Band]:
    """What the queries see: one band for all batch entries, or one for each."""
    queries, keys = query.shape[2], key.shape[2]
    if attn_mask is None:
        return [Band(0, keys, 0, None, 0 if is_causal else None)]
    if is_causal:
        raise ValueError("is_causal: True beside an attn_mask; allowed: one of them")
    return bands_of(attn_mask, query.shape[0], queries, keys)


def _attend(query, key, value, bands, scale, wants_lse=False):
    """Output and, if wanted, log-sum-exp."""
    batch, heads, queries, head_dim = query.shape
    out = torch.empty((batch, queries, heads, head_dim), dtype=query.dtype).transpose(1, 2)
    lse = torch.empty((batch, heads, queries), dtype=torch.float32) if wants_lse else None
    arrays = [as_array(tensor) for tensor in (query, key, value, out)]
    run = run_decode if is_few(heads // key.shape[1], queries, query.dtype == torch.bfloat16) else run_prefill
    for entries, view in _calls(bands):
        q, k, v, o = _part(arrays, entries, view)
        run(q, k, v, o, None if lse is None else lse[entries].numpy(), scale=scale, **_options(view, q, k))
    return out, lse


class _Attention(torch.autograd.Function):
    """The kernels as one differentiable operation."""

    @staticmethod
    def forward(ctx, query, key, value, bands, scale):
        out, lse = _attend(query, key, value, bands, scale, True)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.bands, ctx.scale = bands, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        query, key, value, out, lse = ctx.saved_tensors
        gradients = [torch.empty_like(tensor) for tensor in (query, key, value)]
        if any(band != Band(0, key.shape[2], *band[2:]) for band in ctx.bands):
            for gradient in gradients[1:]:
                gradient.zero_()
        dq, dk, dv = map(as_array, gradients)
        q, k, v, o, do = map(as_array, (query, key, value, out, dout))
        for entries, view in _calls(ctx.bands):
            given, wanted = _part((q, k, v, o), entries, view), _part((dq, dk, dv), entries, view)
            lse_part, options = lse[entries].numpy(), _options(view, *given[:2])
            run_backward(do[entries], *given, lse_part, *wanted, scale=ctx.scale, **options)
        return *gradients, None, None


def _calls(bands: list[Band]) -> list[tuple[slice, Band]]:
    """Batch entries and what they see, entries that see the same together where all do."""
    if len(set(bands)) == 1:
        return [(slice(None), bands[0])]
    return [(slice(place, place + 1), band) for place, band in enumerate(bands)]


def _part(arrays, entries: slice, band: Band) -> list[np.ndarray]:
    """Batch entries of each array, of the second and third (K and V) the band's keys."""
    keys = slice(band.first, band.stop)
    return [array[entries, :, keys] if place in (1, 2) else array[entries] for place, array in enumerate(arrays)]


def _options(band: Band, q, k) -> dict:
    work = q.shape[0] * q.shape[1] * q.shape[2] * q.shape[3] * k.shape[2]
    return {
        "window": (band.left, band.right),
        "offset": band.offset,
        "causal": False,
        "threads": choose_threads(work, torch.get_num_threads()),
    }
