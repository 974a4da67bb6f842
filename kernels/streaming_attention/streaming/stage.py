"""Copies between arrays of any layout or format and fp32 matrices whose rows are whole vectors.

For kernels that exist in one version: they read fp32 in the caller's memory where its rows are such already, a copy
elsewhere.
"""

from __future__ import annotations

import struct

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from streaming_attention.simd import jit
from streaming_attention.simd.compiled import address_of
from streaming_attention.simd.convert import (
    BF16,
    FP16,
    FP32,
    load_scalar_widened,
    load_widened,
    size_of,
    store_narrowed,
    store_scalar_narrowed,
)
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_f32, store_f32
from streaming_attention.simd.vectors import load, store
from streaming_attention.streaming import pool

ROWS = 256
"""Rows of a task."""

_SIDES = [f"{side}{part}" for side in ("source", "target") for part in ("", "_batch", "_head", "_token", "_dim")]
COPY_JOB = np.dtype([(name, np.int64) for name in (*_SIDES, "heads", "tokens", "head_dim", "columns")])
"""Addresses and strides in bytes of both sides, sizes, and the columns of the fp32 side."""

_RECORD = from_dtype(COPY_JOB)
_PACK = struct.Struct(f"{len(COPY_JOB.names)}q")


@intrinsic
def _copy_job_at(typingctx, address):
    """The record at an address."""

    def codegen(context, builder, _signature, args):
        return builder.inttoptr(args[0], context.get_value_type(_RECORD))

    return _RECORD(types.int64), codegen


@jit
def _places(job, task):
    """Addresses of a task's first row on both sides, and how many rows it has."""
    runs = -(-job.tokens // ROWS)
    head, row = task // runs, task % runs * ROWS
    batch, head = head // job.heads, head % job.heads
    source = job.source + batch * job.source_batch + head * job.source_head + row * job.source_token
    target = job.target + batch * job.target_batch + head * job.target_head + row * job.target_token
    return source, target, min(ROWS, job.tokens - row)


@jit
def _widen(isa, storage, job_address, task):
    """Rows to fp32, with zeros beyond head_dim."""
    job = _copy_job_at(job_address)
    source, target, rows = _places(job, task)
    whole = job.head_dim - job.head_dim % lanes(isa) if job.source_dim == size_of(storage) else 0
    for row in range(rows):
        a, b = source + row * job.source_token, target + row * job.target_token
        for c in range(0, whole, lanes(isa)):
            store(load_widened(isa, storage, a + c * job.source_dim), b + 4 * c)
        for c in range(whole, job.head_dim):
            store_f32(load_scalar_widened(storage, a + c * job.source_dim), b + 4 * c)
        for c in range(job.head_dim, job.columns):
            store_f32(np.float32(0), b + 4 * c)


@jit
def _narrow(isa, storage, job_address, task):
    """Rows of fp32 to a format."""
    job = _copy_job_at(job_address)
    source, target, rows = _places(job, task)
    whole = job.head_dim - job.head_dim % lanes(isa) if job.target_dim == size_of(storage) else 0
    for row in range(rows):
        a, b = source + row * job.source_token, target + row * job.target_token
        for c in range(0, whole, lanes(isa)):
            store_narrowed(storage, load(isa, a + 4 * c), b + c * job.target_dim)
        for c in range(whole, job.head_dim):
            store_scalar_narrowed(storage, load_f32(a + 4 * c), b + c * job.target_dim)


@njit(nogil=True, error_model="numpy", cache=True)
def widen_fp32(isa, job_address, task, scratch):
    _widen(isa, FP32, job_address, task)


@njit(nogil=True, error_model="numpy", cache=True)
def widen_bf16(isa, job_address, task, scratch):
    _widen(isa, BF16, job_address, task)


@njit(nogil=True, error_model="numpy", cache=True)
def widen_fp16(isa, job_address, task, scratch):
    _widen(isa, FP16, job_address, task)


@njit(nogil=True, error_model="numpy", cache=True)
def narrow_fp32(isa, job_address, task, scratch):
    _narrow(isa, FP32, job_address, task)


@njit(nogil=True, error_model="numpy", cache=True)
def narrow_bf16(isa, job_address, task, scratch):
    _narrow(isa, BF16, job_address, task)


@njit(nogil=True, error_model="numpy", cache=True)
def narrow_fp16(isa, job_address, task, scratch):
    _narrow(isa, FP16, job_address, task)


WIDEN = {"f": widen_fp32, "H": widen_bf16, "e": widen_fp16}
NARROW = {"f": narrow_fp32, "H": narrow_bf16, "e": narrow_fp16}
"""Kernels by the character of the array's dtype; uint16 holds bfloat16."""


def is_matrix(array: np.ndarray, isa) -> bool:
    """Whether the rows of (batch, heads, tokens, head_dim) are fp32 in whole vectors, so that no copy is needed."""
    return array.dtype == np.float32 and array.strides[3] == 4 and array.shape[3] % isa.lanes == 0


def empty_matrix(shape, isa) -> np.ndarray:
    """Room for (batch, heads, tokens, head_dim), padded to whole tiles of whole vectors."""
    batch, heads, tokens, head_dim = shape
    padded = -(-tokens // isa.rows) * isa.rows, -(-head_dim // isa.lanes) * isa.lanes
    return np.empty((batch, heads, *padded), np.float32)


def as_matrix(array: np.ndarray, isa, threads: int) -> np.ndarray:
    """The array itself if :func:`is_matrix`, else a copy of it."""
    if is_matrix(array, isa):
        return array
    matrix = empty_matrix(array.shape, isa)
    _copy(WIDEN, array.dtype.char, array, matrix, array.shape, matrix.shape[3], isa, threads)
    return matrix


def from_matrix(matrix: np.ndarray, array: np.ndarray, isa, threads: int) -> None:
    """Round a matrix into an array; does nothing if they are the same."""
    if matrix is not array:
        _copy(NARROW, array.dtype.char, matrix, array, array.shape, matrix.shape[3], isa, threads)


def _copy(kernels, char, source, target, shape, columns, isa, threads):
    batch, heads, tokens, head_dim = shape
    sides = (source.ctypes.data, *source.strides, target.ctypes.data, *target.strides)
    record = np.frombuffer(_PACK.pack(*sides, heads, tokens, head_dim, columns), np.uint8)
    tasks = batch * heads * -(-tokens // ROWS)
    pool.launch(isa, address_of(kernels[char], isa, 3), record.ctypes.data, tasks, threads, 0)
