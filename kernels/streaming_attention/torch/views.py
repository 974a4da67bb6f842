"""Tensors as arrays over the same memory."""

from __future__ import annotations

import numpy as np
import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels read."""


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's memory as an array; bfloat16 as the uint16 that kernels read."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def check_tensors(**tensors: torch.Tensor) -> None:
    """Raise unless the tensors are dense, on the CPU, of one supported dtype."""
    dtype = next(iter(tensors.values())).dtype
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name}: {type(tensor).__name__} is not a tensor")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise ValueError(f"{name}: {tensor.layout} on {tensor.device}; allowed: dense tensors on the CPU")
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: dtype {tensor.dtype} is not supported; allowed: {', '.join(map(str, DTYPES))}")
        if tensor.dtype != dtype:
            raise ValueError(f"{name}: dtype {tensor.dtype} differs from {dtype}, that of the others")
