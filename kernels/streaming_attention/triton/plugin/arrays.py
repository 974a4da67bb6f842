"""NumPy arrays as arguments of a ``@triton.jit`` kernel.

Triton types an argument by its ``data_ptr`` and ``dtype``; a NumPy array has the second alone. This adds the first.
"""

from __future__ import annotations

import re

import numpy as np
from triton._C.libtriton import native_specialize_impl


class Element(str):
    """An element type's name, with what Triton asks of torch's types."""

    @property
    def itemsize(self) -> int:
        digits = re.search(r"\d+", self)
        return max(1, int(digits[0]) // 8) if digits else 1

    @property
    def is_floating_point(self) -> bool:
        return "float" in self


class Tensor:
    """Memory with an element type that NumPy may lack.

    Parameters
    ----------
    array : ndarray
        Kept as it is; shared, not copied.
    dtype : str, optional
        Triton's view of its elements: ``float32, bfloat16, int8 ...``; the array's own by default. ``bfloat16`` lies
        in ``uint16`` arrays where ml_dtypes is not installed, ``float8_e4m3fn`` and ``float8_e5m2`` in ``uint8`` ones.

    A tensor descriptor of the host's takes one as its base.
    """

    def __init__(self, array: np.ndarray, dtype: str | None = None):
        self.array = array
        self.dtype = Element(dtype or array.dtype.name)
        self.shape = array.shape

    def data_ptr(self) -> int:
        return self.array.__array_interface__["data"][0]

    def stride(self, axis: int | None = None):
        """Strides in elements, like torch's."""
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        return strides if axis is None else strides[axis]


def specialize(backend, argument, is_const, specialize_value, align):
    """Triton's typing of one argument, for NumPy arrays and scalars too."""
    if isinstance(argument, np.ndarray):
        name = {"bool": "int1"}.get(argument.dtype.name, argument.dtype.name)
        argument = Tensor(argument, name)
    elif isinstance(argument, np.generic):
        argument = argument.item()
    return native_specialize_impl(backend, argument, is_const, specialize_value, align)
