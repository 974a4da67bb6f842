"""NumPy arrays and CPU tensors of torch alike: address, shape, strides, element type; no copy, no torch import."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streaming_attention.triton.cpu.kernel import address_of
from streaming_attention.triton.specializations import DTYPES


class View(NamedTuple):
    """What a kernel needs to know of a tensor; strides in elements."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


def view(name: str, tensor) -> View:
    """Describe an argument.

    Raises
    ------
    TypeError, ValueError
        Neither array nor CPU tensor; an element type without kernels; a last axis that isn't contiguous.
    """
    if isinstance(tensor, np.ndarray):
        dtype = "bfloat16" if tensor.dtype == np.uint16 else tensor.dtype.name
        strides = tuple(step // tensor.itemsize for step in tensor.strides)
    elif hasattr(tensor, "data_ptr"):
        if str(getattr(tensor, "device", "cpu")) != "cpu":
            raise ValueError(f"{name}: is on {tensor.device}, kernels here run on the CPU")
        dtype, strides = str(tensor.dtype).removeprefix("torch."), tuple(tensor.stride())
    else:
        raise TypeError(f"{name}: {type(tensor).__name__} is neither a NumPy array nor a torch tensor")
    if dtype not in DTYPES:
        raise ValueError(f"{name}: element type {dtype}; allowed: {', '.join(DTYPES)} (bfloat16 also as uint16)")
    if tensor.shape[-1] > 1 and 0 not in tensor.shape and strides[-1] != 1:
        raise ValueError(f"{name}: its last axis has stride {strides[-1]}, it must be contiguous")
    return View(address_of(tensor), tuple(tensor.shape), strides, DTYPES[dtype])


def empty_like(tensor, shape: tuple[int, ...] | None = None):
    """A fresh contiguous tensor of the same kind."""
    shape = tuple(tensor.shape) if shape is None else shape
    return np.empty(shape, tensor.dtype) if isinstance(tensor, np.ndarray) else tensor.new_empty(shape)
