"""Checks of the public functions' arguments: every error names the argument, its value and what is allowed.

Kernels read and write through bare addresses; what passes here can't take them outside the arrays.
"""

from __future__ import annotations

import math
import numbers
from functools import cache

import numpy as np

from streaming_attention.parallel import check_threads, most_threads
from streaming_attention.streaming.front import UNBOUNDED

AXES = {"bhtd": ("batch", "heads", "tokens", "head_dim"), "bthd": ("batch", "tokens", "heads", "head_dim")}
FLOATS = ("float32", "float16", "bfloat16")
PAGE_UNIT = 16
"""A page holds a multiple of so many keys."""


@cache
def _format(dtype) -> str | None:
    """Name of a dtype that some kernel reads. ``ml_dtypes.bfloat16`` is known by its name alone."""
    if dtype.name == "bfloat16" and dtype.itemsize == 2:
        return "bfloat16"
    return dtype.name if dtype.isnative and dtype.name in ("float32", "float16", "int8") else None


def check_array(name: str, array, axes: tuple[str, ...], allowed: tuple[str, ...] = FLOATS) -> np.ndarray:
    """The array as kernels read it: aligned (else copied), bfloat16 as uint16."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: {type(array).__name__} is not a numpy array")
    kind = _format(array.dtype)
    if kind not in allowed:
        raise ValueError(f"{name}: dtype {array.dtype} is not supported; allowed: {', '.join(allowed)}")
    if array.ndim != len(axes):
        raise ValueError(f"{name}: shape {array.shape} is not ({', '.join(axes)})")
    if not array.flags.aligned:
        array = array.copy()
    return array.view(np.uint16) if kind == "bfloat16" else array


def check_layout(name: str, layout) -> tuple[str, ...]:
    """The axes' names."""
    if not isinstance(layout, str) or layout not in AXES:
        raise ValueError(f"{name}: {layout!r} is not known; allowed: {', '.join(AXES)}")
    return AXES[layout]


def check_heads(heads: int, kv_heads: int, head_dim: int, k_name: str = "k") -> None:
    for name, size in (("heads of q", heads), (f"heads of {k_name}", kv_heads), ("head_dim", head_dim)):
        if size == 0:
            raise ValueError(f"{name}: 0, must be at least 1")
    if heads % kv_heads:
        raise ValueError(f"heads of q: {heads} is not a multiple of the {kv_heads} heads of {k_name}")


def check_pair(k, v, given, names: tuple[str, str] = ("k", "v")) -> None:
    """That K and V are alike; `given` are the caller's own, for the dtypes' names."""
    if k.shape != v.shape:
        raise ValueError(f"{names[1]}: shape {v.shape} differs from {names[0]}'s {k.shape}")
    if k.dtype != v.dtype:
        raise ValueError(f"{names[1]}: dtype {given[1].dtype} differs from {names[0]}'s {given[0].dtype}")


def check_out(out, q, inputs: dict) -> tuple[np.ndarray, np.ndarray]:
    """The output, the caller's or a new one like `q`, and the same as kernels write it; no input may overlap it."""
    if out is None:
        out = np.empty(q.shape, q.dtype)
        return out, _writeable(out)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: {type(out).__name__} is not a numpy array")
    if out.shape != q.shape:
        raise ValueError(f"out: shape {out.shape}, must be q's, {q.shape}")
    if out.dtype not in (q.dtype, np.float32):
        raise ValueError(f"out: dtype {out.dtype}; allowed: q's ({q.dtype}) and float32")
    if not out.flags.writeable or not out.flags.aligned:
        raise ValueError("out: the array is read-only or not aligned; it must be writeable and aligned")
    if any(stride == 0 and size > 1 for stride, size in zip(out.strides, out.shape, strict=True)):
        raise ValueError(f"out: strides {out.strides} put several elements in one place")
    for name, array in inputs.items():
        if isinstance(array, np.ndarray) and np.may_share_memory(out, array):
            raise ValueError(f"out: shares memory with {name}, which is read while out is written")
    return out, _writeable(out)


def _writeable(out: np.ndarray) -> np.ndarray:
    return out if out.dtype.char in "fe" else out.view(np.uint16)


def check_flag(name: str, value) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: {value!r} is not a bool")
    return bool(value)


def check_number(name: str, value, positive: bool = False) -> float | None:
    """A finite number or None."""
    if value is None:
        return None
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: {value!r} is not a number")
    if not math.isfinite(value):
        raise ValueError(f"{name}: {value!r} is not finite")
    if positive and value <= 0:
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: None and numbers above 0")
    return float(value)


def check_threads_argument(threads) -> int:
    if threads is None:
        return most_threads()
    if not isinstance(threads, numbers.Integral) or isinstance(threads, bool):
        raise TypeError(f"threads: {threads!r} is not an integer")
    check_threads(threads)
    return int(threads)


def check_window(window) -> tuple[int | None, int | None]:
    """(left, right), None for a side without end, which -1 says too."""
    if window is None:
        return None, None
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise TypeError(f"window: {window!r} is not a pair (left, right)")
    return _side(window, window[0]), _side(window, window[1])


def _side(window, side) -> int | None:
    if side is None:
        return None
    if not isinstance(side, numbers.Integral) or isinstance(side, bool):
        raise TypeError(f"window: {side!r} of {window!r} is not an integer")
    if side < -1:
        raise ValueError(f"window: {side} of {window!r} is not allowed; allowed: keys from 0, and -1 or None for all")
    return None if side == -1 else min(int(side), UNBOUNDED)


def check_vector(name: str, array, heads: int) -> np.ndarray | None:
    """An fp32 number for each query head, or None."""
    if array is None:
        return None
    array = check_array(name, array, ("heads",), ("float32",))
    if array.shape != (heads,):
        raise ValueError(f"{name}: shape {array.shape}, must be ({heads},), one for each head of q")
    return np.ascontiguousarray(array)


def check_integers(name: str, array, axes: tuple[str, ...]) -> np.ndarray:
    """An integer array as a C-contiguous int32 one."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: {type(array).__name__} is not a numpy array")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: dtype {array.dtype} is not supported; allowed: integers, int32 without a copy")
    if array.ndim != len(axes):
        raise ValueError(f"{name}: shape {array.shape} is not ({', '.join(axes)})")
    if array.dtype == np.int32:
        return np.require(array, requirements=("C", "A"))
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise ValueError(f"{name}: values from {array.min()} to {array.max()} don't fit int32")
    return array.astype(np.int32, order="C")


def check_starts(name: str, starts, tokens: int, of: str) -> np.ndarray:
    """cu_seqlens: from 0 up to all tokens, never down."""
    starts = check_integers(name, starts, ("sequences + 1",))
    if len(starts) == 0:
        raise ValueError(f"{name}: empty, must hold 0 and the end of every sequence")
    if starts[0] != 0:
        raise ValueError(f"{name}: starts with {starts[0]}, must start with 0")
    falls = np.flatnonzero(starts[1:] < starts[:-1])
    if falls.size:
        at = int(falls[0])
        raise ValueError(f"{name}: {starts[at]}, {starts[at + 1]} at {at} is falling; must never fall")
    if starts[-1] != tokens:
        raise ValueError(f"{name}: ends with {starts[-1]}, must end with the {tokens} tokens of {of}")
    return starts


def check_paging(block_table, seqlens, batch: int, pages: int, page_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths that the table holds, and pages that exist in every entry that a length reaches."""
    if page_size < PAGE_UNIT or page_size % PAGE_UNIT:
        raise ValueError(f"k_pages: pages hold {page_size} keys; allowed: multiples of {PAGE_UNIT}")
    table = check_integers("block_table", block_table, ("batch", "pages of a sequence"))
    lengths = check_integers("seqlens", seqlens, ("batch",))
    for name, array in (("block_table", table), ("seqlens", lengths)):
        if len(array) != batch:
            raise ValueError(f"{name}: shape {array.shape}, must have the batch of q first, {batch}")
    longest = table.shape[1] * page_size
    if batch and not 0 <= int(lengths.min()) <= int(lengths.max()) <= longest:
        bad = lengths[(lengths < 0) | (lengths > longest)][0]
        raise ValueError(f"seqlens: {bad} is not from 0 to {longest}, the keys of {table.shape[1]} pages")
    if table.size and not 0 <= int(table.min()) <= int(table.max()) < pages:
        used = np.arange(table.shape[1]) * page_size < lengths[:, None]
        bad = used & ((table < 0) | (table >= pages))
        if bad.any():
            b, n = (int(x[0]) for x in np.nonzero(bad))
            raise ValueError(f"block_table: {table[b, n]} at ({b}, {n}) is not a page from 0 to {pages - 1}")
    return table, lengths


def check_scales(k_scale, v_scale, kind: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Factors of int8 pages by name: both or, with other dtypes, none."""
    given = {"k_scale": k_scale, "v_scale": v_scale}
    if kind != "b":
        for name, scale in given.items():
            if scale is not None:
                raise ValueError(f"{name}: given, but only int8 pages have factors")
        return {}
    for name, scale in given.items():
        if scale is None:
            raise ValueError(f"{name}: None, must be given with int8 pages: float32 {shape}")
        given[name] = scale = check_array(name, scale, ("pages", "kv_heads", "page_size"), ("float32",))
        if scale.shape != shape:
            raise ValueError(f"{name}: shape {scale.shape}, must be {shape}: a factor per token and head")
    return {name: np.ascontiguousarray(scale) for name, scale in given.items()}
