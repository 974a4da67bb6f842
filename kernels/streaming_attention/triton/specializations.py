"""Which kernels exist, for which types and sizes: plain data, read by the snapshots, the GPU compiler and the tests.

A *specialization* is a kernel of :mod:`streaming_attention.triton.kernels` with its argument types and its compile-time
constants; its name is that of its snapshot.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""Triton's name of an array's element type."""

HEAD_BLOCKS = (32, 64, 128, 256)
"""Head dimensions are padded to one of these."""

BLOCK_M, BLOCK_N = 128, 128
"""Queries and keys of a tile of prefill: of 64 to 256 each, the fastest with and without the causal mask (Zen 5)."""

SHORT_M = 32
"""Queries of a tile where there are no more than that."""

PAIR_FROM = 2048
"""Queries from which on a program takes two tiles of them past the same keys, which are packed half as often: 1 to 2 %
faster (Zen 5). Tiles of twice as many queries gain that too without a causal mask, but lose with it."""

DECODE_N = 512
"""Keys that a program of decode takes at once: 1024 gain little for long caches and cost short ones (Zen 5)."""

PAGES = (16, 64, 256)
"""Keys that a paged program takes at once: the largest that divides the page size."""

ROWS = (1, 2, 4, 8, 16, 32)
"""Rows of a decode program: queries times query heads of a K/V head, padded."""

BACKWARD_BLOCK = 64

STRIDE, COUNT, REAL, CONSTANT = "i64", "i32", "fp32", "constexpr"


@dataclass(frozen=True)
class Specialization:
    """A kernel with types and constants.

    Parameters
    ----------
    name : str
        Such as ``prefill-bf16-d128``.
    module, function : str
        Inside :mod:`streaming_attention.triton.kernels`.
    signature : tuple of (str, str)
        Argument and Triton's name of its type, ``constexpr`` for constants.
    constants : tuple of (str, int or bool)
    """

    name: str
    module: str
    function: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, int], ...]


def head_block(head_dim: int) -> int:
    """The padded head dimension.

    Raises
    ------
    ValueError
        Not between 1 and the largest block.
    """
    for block in HEAD_BLOCKS:
        if 1 <= head_dim <= block:
            return block
    raise ValueError(f"head_dim {head_dim} is not between 1 and {HEAD_BLOCKS[-1]}")


def _signature(pointers: dict[str, str], strides: str, counts: str, constants: dict, scale: bool = True) -> tuple:
    entries = dict(pointers)
    entries |= dict.fromkeys(strides.split(), STRIDE) | dict.fromkeys(counts.split(), COUNT)
    entries |= {"scale": REAL} if scale else {}
    return tuple((entries | dict.fromkeys(constants, CONSTANT)).items())


def _strides(*tensors: str) -> str:
    return " ".join(f"stride_{tensor}{axis}" for tensor in tensors for axis in "bht")


def prefill_tile(queries: int, head_dim: int) -> tuple[int, bool]:
    """Queries of a tile of prefill, and whether they go in pairs: where the scratch of two fits the second cache."""
    if queries <= SHORT_M:
        return SHORT_M, False
    return BLOCK_M, queries >= PAIR_FROM and head_dim in HEAD_BLOCKS and head_dim <= 128


def prefill(
    dtype: str,
    block_d: int,
    even: bool,
    ragged: bool = False,
    pair: bool = False,
    block_m: int = BLOCK_M,
    block_n: int = BLOCK_N,
) -> Specialization:
    """Specialization of the prefill kernel; ``even``: the head dimension is its block."""
    constants = {"RAGGED": ragged, "EVEN_D": even, "PAIR": pair}
    constants |= {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_D": block_d}
    pointers = dict.fromkeys(("q", "k", "v", "out"), f"*{dtype}") | {
        "lse": "*fp32",
        "starts_q": "*i32",
        "starts_k": "*i32",
    }
    strides = _strides("q", "k", "v", "o") + " stride_lb stride_lh"
    signature = _signature(pointers, strides, "queries keys group causal head_dim", constants)
    parts = [
        "prefill",
        dtype,
        f"d{block_d}",
        *["odd"] * (not even),
        *["ragged"] * ragged,
        *["pair"] * pair,
        *[f"m{block_m}"] * (block_m != BLOCK_M),
        *[f"n{block_n}"] * (block_n != BLOCK_N),
    ]
    return Specialization("-".join(parts), "prefill", "prefill", signature, tuple(constants.items()))


def decode(dtype: str, block_d: int, rows: int, even: bool, paged: int = 0, block_n: int = DECODE_N) -> Specialization:
    """Specialization of the decode kernel for padded ``rows``; ``paged``: keys of a page that it takes at once, or 0.

    ``paged`` divides the page size itself.
    """
    block_n = paged or block_n
    constants = {"PAGED": bool(paged), "EVEN_D": even, "ROWS": rows, "BLOCK_N": block_n, "BLOCK_D": block_d}
    pointers = dict.fromkeys(("q", "k", "v"), f"*{dtype}")
    pointers |= {"part_out": "*fp32", "part_lse": "*fp32", "block_table": "*i32", "lengths": "*i32"}
    strides = _strides("q", "k", "v") + " stride_table"
    signature = _signature(pointers, strides, "queries keys group causal head_dim", constants)
    signature = _before_constants(signature, ("split", COUNT), ("page", COUNT))
    parts = ["decode", dtype, f"d{block_d}", *["odd"] * (not even), f"rows{rows}", *[f"page{paged}"] * (paged > 0)]
    name = "-".join([*parts, *[f"n{block_n}"] * (block_n not in (paged, DECODE_N))])
    return Specialization(name, "decode", "decode", signature, tuple(constants.items()))


def _before_constants(signature: tuple, *entries: tuple[str, str]) -> tuple:
    cut = next(place for place, (_, kind) in enumerate(signature) if kind == CONSTANT)
    return (*signature[:cut], *entries, *signature[cut:])


def merge(dtype: str, block_d: int) -> Specialization:
    """Specialization of the merge of a decode's parts."""
    constants = {"BLOCK_D": block_d}
    pointers = {"part_out": "*fp32", "part_lse": "*fp32", "out": f"*{dtype}", "lse": "*fp32"}
    strides = _strides("o") + " stride_lb stride_lh"
    signature = _signature(pointers, strides, "parts queries group head_dim", constants, scale=False)
    return Specialization(f"merge-{dtype}-d{block_d}", "decode", "merge", signature, tuple(constants.items()))


def backward(function: str, dtype: str, block_d: int) -> Specialization:
    """Specialization of ``row_sums``, ``keys_gradient`` or ``queries_gradient``."""
    name = f"{function.replace('_', '')}-{dtype}-d{block_d}"
    if function == "row_sums":
        constants = {"BLOCK_M": BACKWARD_BLOCK, "BLOCK_D": block_d}
        pointers = {"out": f"*{dtype}", "grad": f"*{dtype}", "delta": "*fp32"}
        signature = _signature(pointers, "stride_b stride_h stride_t", "queries head_dim", constants, scale=False)
        return Specialization(name, "backward", function, signature, tuple(constants.items()))
    constants = {"BLOCK_M": BACKWARD_BLOCK, "BLOCK_N": BACKWARD_BLOCK, "BLOCK_D": block_d}
    pointers = dict.fromkeys(("q", "k", "v", "grad"), f"*{dtype}") | {"lse": "*fp32", "delta": "*fp32"}
    outputs = ("grad_k", "grad_v") if function == "keys_gradient" else ("grad_q",)
    pointers |= dict.fromkeys(outputs, f"*{dtype}")
    signature = _signature(pointers, _strides("q", "k"), "queries keys group causal head_dim", constants)
    return Specialization(name, "backward", function, signature, tuple(constants.items()))


@cache
def snapshots() -> tuple[Specialization, ...]:
    """What is shipped as TTIR: attention in fp32, fp16 and bf16 at every padded head dimension."""
    found = []
    for dtype in DTYPES.values():
        for block in HEAD_BLOCKS:
            found += [prefill(dtype, block, even) for even in (True, False)]
            found += [prefill(dtype, block, False, block_m=SHORT_M), prefill(dtype, block, False, ragged=True)]
            found.append(prefill(dtype, block, True, pair=True))
            forms = itertools.product(ROWS, (True, False), (0, *PAGES))
            found += [decode(dtype, block, rows, even, page) for rows, even, page in forms]
            found.append(merge(dtype, block))
            found += [backward(name, dtype, block) for name in ("row_sums", "keys_gradient", "queries_gradient")]
    return tuple(found)
