"""The kernels as an ``attn_implementation`` of the transformers library."""

from __future__ import annotations

from streaming_attention.torch.sdpa import scaled_dot_product_attention

NAME = "streaming_attention"


def register(name: str = NAME) -> None:
    """Make the kernels known to transformers: ``from_pretrained(..., attn_implementation="streaming_attention")``.

    Masks come as for transformers' own ``sdpa``: none at all wherever a causal flag says the same.

    Raises
    ------
    ImportError
        Without the transformers library.

    Examples
    --------
    >>> from transformers import AutoModelForCausalLM                                          # doctest: +SKIP
    >>> from streaming_attention.torch import register                                         # doctest: +SKIP
    >>> register()                                                                             # doctest: +SKIP
    >>> model = AutoModelForCausalLM.from_pretrained(                                          # doctest: +SKIP
    ...     "a-model", attn_implementation="streaming_attention")
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, sdpa_mask)


def attend(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **options,
):
    """An attention function as transformers calls it.

    Parameters
    ----------
    module : Module
        Its ``is_causal`` counts unless `is_causal` is given.
    query : Tensor, (batch, heads, queries, head_dim)
    key, value : Tensor, (batch, kv_heads, keys, head_dim)
    attention_mask : boolean Tensor, (batch, 1, queries, keys) or None

    Returns
    -------
    out : Tensor, (batch, queries, heads, head_dim)
    weights : None
        They never exist.

    Raises
    ------
    ValueError
        Options that change the result and aren't supported.
    """
    for option in ("softcap", "s_aux", "position_bias", "cache"):
        if options.get(option) is not None:
            raise ValueError(f"{option}: not supported by {NAME}; allowed: None")
    queries, keys = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and queries > 1
    if causal and keys > queries:  # a static cache whose later places are empty
        key, value = key[:, :, :queries], value[:, :, :queries]
    out = scaled_dot_product_attention(
        query, key, value, attention_mask, dropout, causal, scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2).contiguous(), None
