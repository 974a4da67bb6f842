"""Blocks of keys as the tiles read them: where they lie, or copied once per task.

========  ===================================  ============================================
tiles     K                                    V
========  ===================================  ============================================
fp32      in place: fp32, contiguous tokens    in place likewise
          copied as fp32: other formats,       copied likewise
          pages
words     in place: rows of whole words        always copied: neighbouring keys interleaved,
          copied: odd head_dim, strided dims,  a word per dim
          pages
========  ===================================  ============================================

A task of several strips copies a block once for all of them. A copy holds the values that are read in place, so pages
give the same bits as contiguous keys.
"""

from __future__ import annotations

from typing import NamedTuple

from streaming_attention.simd import jit
from streaming_attention.simd.isa import lanes
from streaming_attention.simd.memory import load_i16, store_i16
from streaming_attention.simd.operand import are_words, interleave
from streaming_attention.streaming.formats import copy_halves, widen_row
from streaming_attention.streaming.keys import k_address, v_address


class Block(NamedTuple):
    """Keys from `start` on: addresses of their first row of K and V, and bytes from a row and from a dim to the next.

    Where tiles take words, a row of V is two keys.
    """

    start: int
    k: int
    k_token: int
    k_dim: int
    v: int
    v_token: int
    v_dim: int


@jit
def row_bytes(isa, tile, head_dim):
    """Bytes of a copied row of K, padded to whole vectors."""
    step = 2 * lanes(isa) if are_words(tile) else lanes(isa)
    return -(-head_dim // step) * 4 * lanes(isa)


@jit
def open_block(isa, tile, job, rows, start, first, stop, stage):
    """Have the keys first .. stop of the block at `start` ready for tiles."""
    size = row_bytes(isa, tile, job.head_dim)
    k, k_token, k_dim = rows.k + start * job.k_token, job.k_token, job.k_dim
    v, v_token, v_dim = rows.v + start * job.v_token, job.v_token, job.v_dim
    if are_words(tile):
        v, v_token, v_dim = stage + (job.block + 1) * size, 4 * (-(-job.head_dim // lanes(isa)) * lanes(isa)), 4
        _interleave_values(isa, job, rows, start, first, stop, v, v_token, stage + job.block * size)
        k_dim = 4
    if job.staged:
        k, k_token, k_dim = stage, size, 4
        _copy(isa, tile, job, rows, True, first, stop, stage + (first - start) * size, size)
        if not are_words(tile):
            v, v_token, v_dim = stage + job.block * size, size, 4
            _copy(isa, tile, job, rows, False, first, stop, v + (first - start) * size, size)
    return Block(start, k, k_token, k_dim, v, v_token, v_dim)


@jit
def _copy(isa, tile, job, rows, of_k, first, stop, target, size):
    """Rows of K or V, run by run of keys that lie evenly: a page, or all of them."""
    token, dim = (job.k_token, job.k_dim) if of_k else (job.v_token, job.v_dim)
    key = first
    while key < stop:
        run = min(stop - key, job.page - key % job.page) if job.table != 0 else stop - key
        source = _address(job, rows, of_k, key)
        for i in range(run):
            if are_words(tile):
                copy_halves(isa, source + i * token, dim, job.head_dim, target, size)
            else:
                widen_row(isa, job.kv_format, source + i * token, dim, job.head_dim, target, size)
            target += size
        key += run


@jit
def _address(job, rows, of_k, key):
    """A row of K or V, in its page or contiguous."""
    if job.table != 0:
        return k_address(job, rows.head, key) if of_k else v_address(job, rows.head, key)
    return rows.k + key * job.k_token if of_k else rows.v + key * job.v_token


@jit
def _interleave_values(isa, job, rows, start, first, stop, target, size, zeros):
    """Rows of V by pairs of keys from the block's start; a last one alone is paired with zeros."""
    for at in range(0, 2 * job.head_dim, 2):
        store_i16(0, zeros + at)
    first = start + (first - start) // 2 * 2
    step = job.v_dim
    side = lanes(isa)
    for key in range(first, stop, 2):
        low = _address(job, rows, False, key)
        high, high_step = (_address(job, rows, False, key + 1), step) if key + 1 < stop else (zeros, 2)
        to = target + (key - start) // 2 * size
        if step == 2 and job.head_dim >= side:
            for at in range(0, job.head_dim, side):
                dim = min(at, job.head_dim - side)
                interleave(isa, low + 2 * dim, high + 2 * dim, to + 4 * dim)
        else:
            for dim in range(job.head_dim):
                store_i16(load_i16(low + dim * step), to + 4 * dim)
                store_i16(load_i16(high + dim * high_step), to + 4 * dim + 2)


@jit
def stage_bytes(head_dim, lanes, block):
    """Memory for a block's copies: of words, half the size for K, the same for V, and a row of zeros."""
    return (2 * block + 2) * -(-head_dim // lanes) * lanes * 4
