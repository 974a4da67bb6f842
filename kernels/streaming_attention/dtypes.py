"""Precisions of Q, K, V and O by name: how large, how fine, and which arrays hold them. Light to import.

NumPy has no bfloat16 of its own; arrays of it have the dtype of the package ml_dtypes, where that is installed. Kernels
read the same memory as uint16.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DTYPES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of one element of Q, K, V and O by dtype name."""

_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def why_missing(name: str) -> str | None:
    """None, or why there can't be arrays of this dtype here."""
    if name == "bf16" and importlib.util.find_spec("ml_dtypes") is None:
        return "arrays of bf16 need ml_dtypes, which is not installed"
    return None


def numpy_dtype(name: str) -> np.dtype:
    """The dtype of arrays.

    Raises
    ------
    ValueError
        A name that isn't in :data:`DTYPES`.
    ImportError
        bf16 without ml_dtypes.
    """
    import numpy as np

    if name not in DTYPES:
        raise ValueError(f"dtype: {name!r} is not known; allowed: {', '.join(DTYPES)}")
    if name == "bf16":
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return np.dtype({"fp32": "float32", "fp16": "float16"}[name])


def name_of(dtype: np.dtype) -> str:
    """The name of an array's dtype, which need not be one of :data:`DTYPES`: ``fp32``, ``bf16``, ``float64``."""
    return {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}.get(dtype.name, dtype.name)


def eps(dtype: np.dtype) -> float:
    """Distance from 1 to the next larger number."""
    return _EPS[dtype.name]


def words(array: np.ndarray) -> np.ndarray:
    """The array as kernels read it: bfloat16 as uint16 of the same memory, everything else as it is."""
    return array.view("uint16") if array.dtype.name == "bfloat16" else array
