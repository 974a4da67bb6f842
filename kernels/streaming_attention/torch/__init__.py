"""The kernels for torch tensors on the CPU; needs the extra ``torch``.

:func:`scaled_dot_product_attention` takes what torch's function of that name takes, shares its tensors' memory and has
gradients. :func:`register` makes it an ``attn_implementation`` of the transformers library.
"""

from __future__ import annotations

from streaming_attention.torch.sdpa import scaled_dot_product_attention
from streaming_attention.torch.transformers import register

__all__ = ["register", "scaled_dot_product_attention"]
