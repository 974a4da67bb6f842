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
from streaming_attention.simd.convert import format_of
from streaming_attention.streaming import pool
from streaming_attention.streaming.formats import copy_halves, narrow_row, widen_row

ROWS = 256
"""Rows of a task."""

_SIDES = [f"{side}{part}" for side in ("source", "target") for part in ("", "_batch", "_head", "_token", "_dim")]
COPY_JOB = np.dtype([(name, np.int64) for name in (*_SIDES, "heads", "tokens", "head_dim", "columns", "format")])
"""Addresses and strides in bytes of both sides, sizes, the columns of the fp32 side, and the format of the other."""

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
def _move(isa, job_address, task, move_row):
    """Rows one by one."""
    job = _copy_job_at(job_address)
    source, target, rows = _places(job, task)
    for row in range(rows):
        move_row(isa, job, source + row * job.source_token, target + row * job.target_token)


@jit
def _widen_row(isa, job, source, target):
    widen_row(isa, job.format, source, job.source_dim, job.head_dim, target, 4 * job.columns)


@jit
def _narrow_row(isa, job, source, target):
    narrow_row(isa, job.format, source, job.head_dim, target, job.target_dim)


@jit
def _copy_row(isa, job, source, target):
    copy_halves(isa, source, job.source_dim, job.head_dim, target, 2 * job.columns)


@njit(nogil=True, error_model="numpy", cache=True)
def widen_rows(isa, job, task, scratch):
    """Kernel: rows to fp32, with zeros beyond head_dim."""
    _move(isa, job, task, _widen_row)


@njit(nogil=True, error_model="numpy", cache=True)
def narrow_rows(isa, job, task, scratch):
    """Kernel: rows of fp32 to a format."""
    _move(isa, job, task, _narrow_row)


@njit(nogil=True, error_model="numpy", cache=True)
def copy_half_rows(isa, job, task, scratch):
    """Kernel: rows of 16-bit numbers as they are, with zeros beyond head_dim."""
    _move(isa, job, task, _copy_row)


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
    _copy(widen_rows, format_of(array.dtype), array, matrix, array.shape, matrix.shape[3], isa, threads)
    return matrix


def as_words(array: np.ndarray, isa, threads: int) -> np.ndarray:
    """(batch, heads, tokens, head_dim) of 16-bit numbers in rows of whole vectors of words: itself, or a copy."""
    batch, heads, tokens, head_dim = array.shape
    side = 2 * isa.lanes
    if array.strides[3] == 2 and head_dim % side == 0:
        return array
    matrix = np.empty((batch, heads, tokens, -(-head_dim // side) * side), np.uint16)
    _copy(copy_half_rows, 0, array, matrix, array.shape, matrix.shape[3], isa, threads)
    return matrix


def from_matrix(matrix: np.ndarray, array: np.ndarray, isa, threads: int) -> None:
    """Round a matrix into an array; does nothing if they are the same."""
    if matrix is not array:
        _copy(narrow_rows, format_of(array.dtype), matrix, array, array.shape, matrix.shape[3], isa, threads)


def _copy(kernel, form, source, target, shape, columns, isa, threads):
    batch, heads, tokens, head_dim = shape
    sides = (source.ctypes.data, *source.strides, target.ctypes.data, *target.strides)
    record = np.frombuffer(_PACK.pack(*sides, heads, tokens, head_dim, columns, form), np.uint8)
    tasks = batch * heads * -(-tokens // ROWS)
    pool.launch(isa, address_of(kernel, isa, 3), record.ctypes.data, tasks, threads, 0)
