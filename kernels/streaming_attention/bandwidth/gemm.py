"""The GEMM ceiling: what the BLAS reaches on a square fp32 product, the practical limit of anything compute-bound."""

from __future__ import annotations

import numpy as np
from threadpoolctl import ThreadpoolController

from streaming_attention.bandwidth.ceiling import Ceiling
from streaming_attention.parallel import LOCK

CHECKED_ROWS = 16
"""Rows of the product that are compared with float64."""


def flops_per_call(size: int) -> int:
    """FLOPs of one size x size product: a multiplication and an addition for each of size^3 terms."""
    return 2 * size**3


def prepare_gemm(size: int, threads: int) -> Ceiling:
    """A product of two random size x size matrices in float32, BLAS held to ``threads`` during a call.

    Returns
    -------
    Ceiling
        Its ``error`` is the relative L2 error of rows spread over the product; rounding in any order stays within
        its ``tolerance``.
    """
    if size < 1:
        raise ValueError(f"size: {size} is not positive")
    a, b = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    product = np.full((size, size), np.nan, np.float32)
    blas = ThreadpoolController()

    def run():
        with LOCK, blas.limit(limits=threads, user_api="blas"):
            np.matmul(a, b, out=product)

    def error():
        rows = np.linspace(0, size - 1, min(size, CHECKED_ROWS)).astype(int)
        right = a[rows].astype(np.float64) @ b.astype(np.float64)
        return float(np.linalg.norm(product[rows] - right) / np.linalg.norm(right))

    return Ceiling(run, error, tolerance=float(np.finfo(np.float32).eps) * np.sqrt(size))
