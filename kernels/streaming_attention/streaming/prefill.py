"""Prefill: many queries against all keys, by strips of query rows.

A strip is one register tile wide; its rows (:mod:`.rows`) are the lanes of every vector. Per block of keys it computes
scores (tile), weights (:mod:`.softmax`) and output (tile); :mod:`..simd.tile` has the shapes. A task is a few strips
that share each block of K and V (:mod:`.blocks`) while it is in the cache.

Blocks start at multiples of the block size whatever the task, and what a lane computes doesn't depend on the others. So
the bits of a row depend on its own query, the keys it sees and the block size alone: one call gives the same bits as
its queries in chunks, as pages, and as any cut into tasks.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from streaming_attention.simd import jit
from streaming_attention.simd.convert import BF16, FORMATS, FP32, WORDS, format_of
from streaming_attention.simd.isa import choose_isa, lanes, tile_rows, width
from streaming_attention.simd.memory import load_f32
from streaming_attention.simd.operand import are_words, multiply_add, splat_seen
from streaming_attention.simd.tile import FULL, multiply_tile, score_tile
from streaming_attention.simd.vectors import lane_sum, load, splat, store
from streaming_attention.streaming.blocks import open_block, stage_bytes
from streaming_attention.streaming.job import job_at
from streaming_attention.streaming.rows import seen_by_strip, task_rows, vectors_of
from streaming_attention.streaming.softmax import STEP, adjust, mask, weigh
from streaming_attention.streaming.strip import (
    FIRST,
    LAST,
    PEAK,
    close_strip,
    depth,
    o_panel,
    open_strip,
    q_panel,
    strip_bytes,
)

BLOCK = 128
"""Keys of a block unless the caller says otherwise.

A strip's scores are then 24 KiB (AVX-512), and O is read and written once per 128 keys."""
BLOCK_WORDS = 256
"""The same where tiles multiply words, whose weights take half the room: 2% faster than 128 (Zen 5, head_dim 128)."""
BF16_FORMAT = FORMATS.index(BF16)


@njit(nogil=True, error_model="numpy", cache=True)
def prefill_task(isa, job, task, scratch):
    """Kernel with fp32 tiles: all keys for one run of rows of one K/V head."""
    _prefill(isa, FP32, job, task, scratch)


@njit(nogil=True, error_model="numpy", cache=True)
def prefill_words(isa, job, task, scratch):
    """Kernel whose tiles multiply pairs of bfloat16, for Q, K and V in bfloat16."""
    _prefill(isa, WORDS, job, task, scratch)


@jit
def _prefill(isa, tile, job_address, task, scratch):
    job = job_at(job_address)
    rows, first_row = task_rows(isa, job, task)
    strips = min(job.strips, -(-(rows.count - first_row) // width(isa)))
    unit = 4 * width(isa)
    scores = scratch
    size = strip_bytes(job.head_dim, lanes(isa), width(isa), tile_rows(isa))
    base = scratch + max(job.block + tile_rows(isa), depth(isa, job.head_dim)) * unit
    stage = base + job.strips * size

    start, stop = rows.keys, 0
    for s in range(strips):
        first, last = open_strip(isa, tile, job, rows, first_row + s * width(isa), base + s * size, scores)
        start, stop = min(start, first), max(stop, last)
    for at in range(start // job.block * job.block, stop, job.block):
        first = max(at + (start - at) // STEP * STEP, at)
        block = open_block(isa, tile, job, rows, at, first, min(at + job.block, stop), stage)
        for s in range(strips):
            _attend(isa, tile, job, rows, first_row + s * width(isa), base + s * size, scores, block)
    for s in range(strips):
        close_strip(isa, job, rows, first_row + s * width(isa), base + s * size, scores)


@jit
def _attend(isa, tile, job, rows, row, strip, scores, block):
    """Add a block of keys to a strip."""
    first, last, full_first, full_last = seen_by_strip(isa, job, rows, row)
    first, last = max(first - block.start, 0), min(last - block.start, job.block)
    if first >= last:
        return
    first = first // STEP * STEP
    keys, vectors, output = last - first, vectors_of(isa, rows, row), o_panel(isa, job, strip)
    _scores(isa, tile, job, vectors, block, first, keys, strip, scores)
    # Where words pair the last key with one that nobody here sees, its V is weighted by 0 and has to be finite too.
    paired = are_words(tile) and last % 2 == 1 and last < job.block
    masked = paired or first + block.start < full_first or last + block.start > full_last
    adjusted = job.softcap != 0 or job.slopes != 0 or job.scale <= 0
    scale = np.float32(1 if adjusted else job.scale)
    for column in range(vectors):
        at = column * 4 * lanes(isa)
        if adjusted:
            adjust(isa, job, scores + at, strip + at, block.start + first, keys)
        if masked:
            mask(isa, scores + at, strip + at, block.start + first, keys)
        weigh(isa, tile, scores + at, keys, strip + at, output + at, job.head_dim, scale, masked or adjusted)
    seen = max(full_last - block.start, first) if first + block.start >= full_first else first
    if masked and not _all_finite(isa, tile, job, block, seen, last):
        _accumulate_seen(isa, tile, job, vectors, block, first, keys, scores, strip)
    else:
        _accumulate(isa, tile, job, vectors, block, first, keys, scores, output)


@jit
def _scores(isa, tile, job, vectors, block, first, keys, strip, scores):
    """scores[key, lane] = K[key] . Q[lane], a tile of keys at a time, and the largest score of every lane."""
    step, unit, lowest = tile_rows(isa), 4 * width(isa), splat(isa, np.float32(-np.inf))
    steps = (job.head_dim + 1) // 2 if are_words(tile) else job.head_dim
    k, q, peaks = block.k + first * block.k_token, q_panel(isa, strip), strip + PEAK * unit
    for at in range(0, unit, 4 * lanes(isa)):
        store(lowest, peaks + at)
    for j in range(0, keys, step):
        a, c, valid = k + j * block.k_token, scores + j * unit, min(step, keys - j)
        if vectors == 3:
            score_tile(isa, tile, 3, a, block.k_token, block.k_dim, valid, q, steps, c, peaks)
        elif vectors == 2:
            score_tile(isa, tile, 2, a, block.k_token, block.k_dim, valid, q, steps, c, peaks)
        else:
            score_tile(isa, tile, 1, a, block.k_token, block.k_dim, valid, q, steps, c, peaks)


@jit
def _values(tile, block, first, keys):
    """Address of the first row of V that holds these keys, and how many rows do."""
    if are_words(tile):
        return block.v + first // 2 * block.v_token, (keys + 1) // 2
    return block.v + first * block.v_token, keys


@jit
def _accumulate(isa, tile, job, vectors, block, first, keys, weights, output):
    """output[dim, lane] += V[:, dim] . weights[:, lane], a tile of dims at a time."""
    step, unit = tile_rows(isa), 4 * width(isa)
    v, steps = _values(tile, block, first, keys)
    for dim in range(0, job.head_dim, step):
        a, c, valid = v + dim * block.v_dim, output + dim * unit, min(step, job.head_dim - dim)
        if vectors == 3:
            multiply_tile(
                isa, tile, FULL, 3, a, block.v_dim, block.v_token, valid, weights, unit, steps, c, unit, True, 0, 0
            )
        elif vectors == 2:
            multiply_tile(
                isa, tile, FULL, 2, a, block.v_dim, block.v_token, valid, weights, unit, steps, c, unit, True, 0, 0
            )
        else:
            multiply_tile(
                isa, tile, FULL, 1, a, block.v_dim, block.v_token, valid, weights, unit, steps, c, unit, True, 0, 0
            )


@jit
def _all_finite(isa, tile, job, block, first, last):
    """Whether V of these keys of the block holds no infinity and no NaN, so that weight 0 hides it."""
    side = lanes(isa)
    bad = splat(isa, np.float32(0))
    zero = bad
    start = first // 2 * 2 if are_words(tile) else first
    v, count = _values(tile, block, start, last - start)
    for j in range(count):
        row = v + j * block.v_token
        if block.v_dim == 4 and job.head_dim >= side:
            for dim in range(0, job.head_dim, side):
                bad = multiply_add(tile, load(isa, row + 4 * min(dim, job.head_dim - side)), zero, bad)
        else:
            for dim in range(job.head_dim):
                bad = multiply_add(tile, splat(isa, load_f32(row + dim * block.v_dim)), zero, bad)
    return lane_sum(bad) == 0


@jit
def _accumulate_seen(isa, tile, job, vectors, block, first, keys, weights, strip):
    """The same as :func:`_accumulate`, to the bit, with V taken as 0 in lanes that don't see the key."""
    unit, side = 4 * width(isa), 4 * lanes(isa)
    output = o_panel(isa, job, strip)
    v, steps = _values(tile, block, first, keys)
    per_row = 2 if are_words(tile) else 1
    for at in range(0, vectors * side, side):
        start, stop = load(isa, strip + FIRST * unit + at), load(isa, strip + LAST * unit + at)
        for j in range(steps):
            weight = load(isa, weights + j * unit + at)
            key = block.start + first + per_row * j
            for dim in range(job.head_dim):
                before = load(isa, output + dim * unit + at)
                value = load_f32(v + j * block.v_token + dim * block.v_dim)
                seen = splat_seen(isa, tile, value, start, stop, key)
                store(multiply_add(tile, seen, weight, before), output + dim * unit + at)


def choose_kernel(q_dtype, kv_dtype, isa=None):
    """The instruction set and the kernel for arrays of these dtypes; the best of this CPU unless `isa` is given."""
    all_bf16 = format_of(q_dtype) == format_of(kv_dtype) == BF16_FORMAT
    isa = choose_isa(all_bf16, isa)
    return isa, prefill_words if all_bf16 and isa.has_bf16_dot else prefill_task


def block_of(kernel) -> int:
    """Keys of a block unless the caller says otherwise."""
    return BLOCK_WORDS if kernel is prefill_words else BLOCK


def describe(isa, kernel) -> str:
    """What runs: the instruction set, and what the tiles multiply."""
    return f"streaming.prefill {isa.name} {'bf16' if kernel is prefill_words else 'fp32'}"


def is_staged(kernel, job) -> int:
    """Whether K (and V, where tiles are fp32) must be copied block by block."""
    if job["table"]:
        return 1
    if kernel is prefill_words:
        return int(job["k_dim"] != 2 or job["head_dim"] % 2)
    return int(job["kv_format"] != 0)


def scratch_bytes(isa, head_dim: int, strips: int, block: int = BLOCK, copies: bool = False) -> int:
    """Memory that a thread needs: a block of scores, the task's strips and, where it is copied, a block of K and V."""
    scores = max(block + isa.rows, head_dim, isa.lanes) * isa.width * 4
    strip = strip_bytes.py_func(head_dim, isa.lanes, isa.width, isa.rows)
    return scores + strips * strip + copies * stage_bytes.py_func(head_dim, isa.lanes, block)
