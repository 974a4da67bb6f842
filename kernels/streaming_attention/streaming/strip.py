"""A strip of query rows, one a lane: its memory, how it is opened with Q and closed into O.

In units of rows of ``width`` fp32: single rows of state, Q transposed, O transposed. Q is kept in words where the tiles
take words, so half of its rows are unused then. Arrays in fp32 with neighbouring dims are transposed in registers from
where they lie; all others pass through rows of their own in between.
"""

from __future__ import annotations

import math

import numpy as np

from streaming_attention.simd import jit
from streaming_attention.simd.isa import lanes, tile_rows, width
from streaming_attention.simd.memory import load_f32, load_i64, store_f32, store_i32, store_i64
from streaming_attention.simd.operand import are_words
from streaming_attention.simd.transpose import gather_block, scatter_block
from streaming_attention.simd.vectors import load, maximum, splat, store
from streaming_attention.streaming.formats import copy_halves, narrow_row, widen_row
from streaming_attention.streaming.rows import seen_by, seen_by_strip, vectors_of

LOWEST_MAXIMUM = np.float32(-1e38)
"""Where running maxima start: finite, so that -inf - maximum is -inf and never NaN."""
LOG2E = math.log2(math.e)

# Rows of state: running maximum and sum, the keys that a lane sees, the key it stands at, its ALiBi slope, the largest
# score of a block, and addresses (an int64 per lane, two units) of rows to read or write.
MAXIMUM, TOTAL, FIRST, LAST, POSITION, SLOPE, PEAK, TABLE, UNITS = 0, 1, 2, 3, 4, 5, 6, 7, 9


@jit
def depth(isa, head_dim):
    """Rows of transposed Q or O: at least a square of lanes, which transposes write."""
    return max(head_dim, lanes(isa))


@jit
def q_panel(isa, strip):
    """Address of transposed Q."""
    return strip + UNITS * 4 * width(isa)


@jit
def o_panel(isa, job, strip):
    """Address of transposed O."""
    return strip + (UNITS + depth(isa, job.head_dim)) * 4 * width(isa)


@jit
def strip_bytes(head_dim, lanes, width, tile_rows):
    """Memory of one strip; a tile may write rows of O beyond its last, and lanes without a row have one to write to."""
    spare = max(head_dim, lanes) // width + 1
    return (UNITS + 2 * max(head_dim, lanes) + tile_rows + spare) * width * 4


@jit
def open_strip(isa, tile, job, rows, row, strip, between):
    """Fill a strip's state and its transposed Q, O zero; returns first and last key that any of its rows sees."""
    unit = 4 * width(isa)
    query, member = row // rows.group, row % rows.group
    for lane in range(width(isa)):
        at = strip + 4 * lane
        store_i64(rows.q + member * job.q_head + query * job.q_token, strip + TABLE * unit + 8 * lane)
        first, last = seen_by(job, rows, query)
        store_i32(first, at + FIRST * unit)
        store_i32(last, at + LAST * unit)
        store_i32(query + rows.offset, at + POSITION * unit)
        _open_lane(isa, job, rows.first_head + member, at)
        if row + lane + 1 < rows.count:
            member += 1
            if member == rows.group:
                query, member = query + 1, 0
    _gather_queries(isa, tile, job, strip, between)
    output = o_panel(isa, job, strip)
    zero = splat(isa, np.float32(0))
    for at in range(0, job.head_dim * unit, 4 * lanes(isa)):
        store(zero, output + at)
    first, last, _, _ = seen_by_strip(isa, job, rows, row)
    return first, last


@jit
def _open_lane(isa, job, head, at):
    """What depends on the query head alone. A sink is a logit that the row has seen already."""
    unit = 4 * width(isa)
    peak, total = LOWEST_MAXIMUM, np.float32(0)
    if job.sinks != 0:
        sink = np.float32(load_f32(job.sinks + 4 * head) * LOG2E)
        if not sink <= LOWEST_MAXIMUM:
            peak, total = sink, np.float32(1)
    store_f32(peak, at + MAXIMUM * unit)
    store_f32(total, at + TOTAL * unit)
    if job.slopes != 0:
        store_f32(np.float32(load_f32(job.slopes + 4 * head) * LOG2E), at + SLOPE * unit)


@jit
def _gather_queries(isa, tile, job, strip, between):
    """Q transposed: squares of lanes x lanes, the last one overlapping."""
    unit, side = 4 * width(isa), lanes(isa)
    per_word = 2 if are_words(tile) else 1
    size = 4 // per_word
    steps = -(-job.head_dim // per_word)
    table, panel = strip + TABLE * unit, q_panel(isa, strip)
    direct = job.q_dim == size and job.head_dim == steps * per_word and steps >= side
    if not (direct and (are_words(tile) or job.q_format == 0)):
        _copy_queries(isa, tile, job, strip, between)
    for column in range(0, width(isa), side):
        for at in range(0, steps, side):
            dim = max(min(at, steps - side), 0)
            gather_block(isa, table + 8 * column, 4 * dim, panel + dim * unit + 4 * column, unit)


@jit
def _copy_queries(isa, tile, job, strip, between):
    """Rows of Q as the tiles take them, padded with zeros, to where the table then points."""
    unit, size = 4 * width(isa), 4 * depth(isa, job.head_dim)
    for lane in range(width(isa)):
        entry, target = strip + TABLE * unit + 8 * lane, between + lane * size
        source = load_i64(entry)
        if are_words(tile):
            copy_halves(isa, source, job.q_dim, job.head_dim, target, size)
        else:
            widen_row(isa, job.q_format, source, job.q_dim, job.head_dim, target, size)
        store_i64(target, entry)


@jit
def close_strip(isa, job, rows, row, strip, between):
    """O / total to where it belongs, and log-sum-exp if wanted. A row that saw no key has 0 and -inf, or its sink."""
    unit, side = 4 * width(isa), lanes(isa)
    output, table = o_panel(isa, job, strip), strip + TABLE * unit
    direct = job.o_format == 0 and job.o_dim == 4 and job.head_dim >= side
    _address_outputs(isa, job, rows, row, strip, between, direct)
    if job.lse != 0:
        _store_lse(isa, job, rows, row, strip)
    tiny, one = splat(isa, np.float32(1e-38)), splat(isa, np.float32(1))
    for column in range(vectors_of(isa, rows, row)):
        at = 4 * side * column
        inverse = one / maximum(tiny, load(isa, strip + TOTAL * unit + at))
        for dim in range(job.head_dim):
            store(load(isa, output + dim * unit + at) * inverse, output + dim * unit + at)
        for start in range(0, job.head_dim, side):
            dim = max(min(start, job.head_dim - side), 0)
            scatter_block(isa, table + 8 * side * column, 4 * dim, output + dim * unit + at, unit)
    if not direct:
        _copy_outputs(isa, job, rows, row, strip, between)


@jit
def _address_outputs(isa, job, rows, row, strip, between, direct):
    """Fill the table with the rows of O, or with those in between; a spare one for lanes that have no row."""
    unit, size = 4 * width(isa), 4 * depth(isa, job.head_dim)
    spare = o_panel(isa, job, strip) + (depth(isa, job.head_dim) + tile_rows(isa)) * unit
    query, member = row // rows.group, row % rows.group
    for lane in range(width(isa)):
        target = spare
        if not direct:
            target = between + lane * size
        elif row + lane < rows.count:
            target = rows.o + member * job.o_head + query * job.o_token
        store_i64(target, strip + TABLE * unit + 8 * lane)
        member += 1
        if member == rows.group:
            query, member = query + 1, 0


@jit
def _copy_outputs(isa, job, rows, row, strip, between):
    """Rows in between to O, in its format."""
    size = 4 * depth(isa, job.head_dim)
    for lane in range(min(width(isa), rows.count - row)):
        query, member = (row + lane) // rows.group, (row + lane) % rows.group
        target = rows.o + member * job.o_head + query * job.o_token
        source = between + lane * size
        narrow_row(isa, job.o_format, source, job.head_dim, target, job.o_dim)


@jit
def _store_lse(isa, job, rows, row, strip):
    """lse[query head, query] of the sequence, natural logarithm."""
    unit = 4 * width(isa)
    for lane in range(min(width(isa), rows.count - row)):
        query, member = (row + lane) // rows.group, (row + lane) % rows.group
        total = load_f32(strip + TOTAL * unit + 4 * lane)
        value = -np.inf
        if total != 0:
            value = (load_f32(strip + MAXIMUM * unit + 4 * lane) + math.log2(total)) * math.log(2.0)
        store_f32(np.float32(value), rows.lse + 4 * ((rows.first_head + member) * job.queries + query))
