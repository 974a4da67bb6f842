"""The backward pass: dQ, dK and dV, the weights computed again from log-sum-exp (FlashAttention-2, section 3.1).

With S = scale * Q K^T, P = exp(S - lse), dP = dO V^T and dS = P * (dP - delta), delta = sum(dO * O) over head_dim:

=======  ==========  ============================  ======================  =======================  =========
product  rows r      A[r, k]                       B[k, lanes]             C[r, lanes]              sum over
=======  ==========  ============================  ======================  =======================  =========
S        keys        K, along head_dim             Q transposed            scores, a key per row    head_dim
dP       keys        V, along head_dim             dO transposed           likewise                 head_dim
dV       keys        P                             dO                      dV, lanes along          queries
dK       keys        dS                            Q                       dK, head_dim             queries
dQ       queries     dS, read down its columns     K                       dQ                       keys
=======  ==========  ============================  ======================  =======================  =========

All five are the forward's register tile (:mod:`..simd.tile`).

A task is a chunk of keys of one K/V head and keeps its dK and dV; it walks over the queries of the group's heads, a run
of :data:`STRIPS` strips at a time. The task with the first key that a run sees prepares the run's strips
(:mod:`.backward_rows`). dQ is shared by the tasks of a head: they add to it in the order of their keys, each waiting
until the one before it has passed a run of queries. So there is one copy of dQ, and every sum is taken block of keys
after block of keys, run after run: its bits depend neither on threads nor on how long chunks are. Tasks start in order,
so the first that isn't done never waits; all of them at once are a pipeline. The last queries come first, because under
a causal mask and in windows later keys are seen by later queries: a task then starts as the one before it does.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from streaming_attention.simd import jit
from streaming_attention.simd.convert import FP32
from streaming_attention.simd.exp2 import exp2
from streaming_attention.simd.isa import lanes, tile_rows, width
from streaming_attention.simd.memory import atomic_load, atomic_store, load_f32, pause, prefetch, store_f32, store_i32
from streaming_attention.simd.tile import FULL, multiply_tile
from streaming_attention.simd.vectors import LINE, fma, keep_between, lane_sum, load, splat, store
from streaming_attention.streaming.backward_job import backward_job_at
from streaming_attention.streaming.backward_rows import (
    DELTA,
    FACTOR,
    LSE,
    STATE,
    matrix_row,
    prepare_strip,
    rows_scratch_bytes,
    strips_of,
)
from streaming_attention.streaming.keys import seen_by

BLOCK = 96
"""Keys that meet a run of queries at a time; a multiple of the rows of every tile."""
STRIPS = 2
"""Strips of a run: with more, dK and dV are read and written less often, but its scores leave the nearest cache."""
NOTHING, HERE, AHEAD = 0, 1, 2
"""What the first block of a chunk fetches during its scores: this run's dO and dQ or, where those have just been
prepared, the next run's dO and Q (with 1024 tokens 3 % of the time on Zen 5, 1 % with 4096)."""


@njit(nogil=True, error_model="numpy", cache=True)
def backward_task(isa, job_address, task, scratch):
    """Kernel: a chunk of keys of one K/V head against all queries that see them."""
    job = backward_job_at(job_address)
    heads = job.batch * job.kv_heads
    head, first_key = task % heads, task // heads * job.chunk
    keys = min(job.chunk, job.keys - first_key)
    group, run = job.heads // job.kv_heads, STRIPS * width(isa)
    runs = -(-job.queries // run)
    padded = -(-keys // tile_rows(isa)) * tile_rows(isa)
    dk = scratch
    dv = dk + 4 * padded * job.columns
    scores = dv + 4 * padded * job.columns
    spare = scores + _block_bytes(width(isa), tile_rows(isa))
    _clear(isa, dk, 2 * padded * job.columns)
    for turn in range(group * runs):
        query_head, row = head * group + turn // runs, (runs - 1 - turn % runs) * run
        rows = min(run, job.queries - row)
        first, last, _, _ = _seen(job, row, rows)
        begins = first_key <= max(min(first, job.keys - 1), 0) < first_key + job.chunk
        if begins:
            for at in range(row, row + rows, width(isa)):
                prepare_strip(isa, job, query_head, at, spare)
        if first >= first_key + keys or last <= first_key:
            continue
        _wait(job, task, heads, turn)
        for block in range(0, keys, BLOCK):
            at = 4 * block * job.columns
            count = min(BLOCK, keys - block)
            fetches = (AHEAD if begins else HERE) if block == 0 else NOTHING
            _attend(isa, job, head, query_head, row, first_key + block, count, fetches, dk + at, dv + at, scores)
        atomic_store(turn + 1, job.progress + 8 * task)
    _wait(job, task, heads, group * runs - 1)
    atomic_store(group * runs, job.progress + 8 * task)
    _write(
        isa, job, dk, keys, _kv_row(job, job.dk, job.dk_batch, job.dk_head, job.dk_token, head, first_key), job.dk_token
    )
    _write(
        isa, job, dv, keys, _kv_row(job, job.dv, job.dv_batch, job.dv_head, job.dv_token, head, first_key), job.dv_token
    )


@jit
def _wait(job, task, heads, turn):
    """Until the head's task before this one has passed a run of queries."""
    if task >= heads:
        while atomic_load(job.progress + 8 * (task - heads)) <= turn:
            pause()


@jit
def _attend(isa, job, head, query_head, row, key, keys, fetches, dk, dv, scores):
    """A block of keys and a run of queries: whole where all see all, else strip by strip, cut to what it sees."""
    rows = min(STRIPS * width(isa), job.queries - row)
    _, _, full_first, full_last = _seen(job, row, rows)
    if full_first <= key and key + keys <= full_last:
        _differentiate(isa, job, head, query_head, row, rows, key, keys, fetches, False, dk, dv, scores)
        return
    step = tile_rows(isa)
    for at in range(row, row + rows, width(isa)):
        count = min(width(isa), row + rows - at)
        first, last, full_first, full_last = _seen(job, at, count)
        low, high = max(first - key, 0), min(last - key, keys)
        if low < high:
            # Whole tiles: a tile writes all its rows, and those that nobody sees get zeros added.
            low, high = low // step * step, min(-(-high // step) * step, keys)
            masked = key + low < full_first or key + high > full_last
            shift = 4 * low * job.columns
            _differentiate(
                isa,
                job,
                head,
                query_head,
                at,
                count,
                key + low,
                high - low,
                fetches,
                masked,
                dk + shift,
                dv + shift,
                scores,
            )


@jit
def _differentiate(isa, job, head, query_head, row, rows, key, keys, fetches, masked, dk, dv, scores):
    """Add what these queries and keys give to dQ, dK and dV; rows of :data:`HERE` or :data:`AHEAD` are fetched."""
    unit = 4 * width(isa)
    stride = STRIPS * unit
    gradients = scores + (BLOCK + tile_rows(isa)) * stride
    bounds = gradients + (BLOCK + tile_rows(isa)) * stride
    k = _kv_row(job, job.k, job.k_batch, job.k_head, job.k_token, head, key)
    v = _kv_row(job, job.v, job.v_batch, job.v_head, job.v_token, head, key)
    strip = query_head * strips_of(job.queries, width(isa)) + row // width(isa)
    q = matrix_row(job, job.q, job.q_batch, job.q_head, job.q_token, query_head, row)
    do = matrix_row(job, job.do, job.do_batch, job.do_head, job.do_token, query_head, row)
    dq = matrix_row(job, job.dq, job.dq_batch, job.dq_head, job.dq_token, query_head, row)
    fetch, other, other_token = do, dq, job.dq_token
    if fetches == AHEAD:
        before = STRIPS * width(isa)
        fetch, other, other_token = do - before * job.do_token, q - before * job.q_token, job.q_token
    for s in range(strips_of(rows, width(isa))):
        panel = job.panels + 2 * job.columns * unit * (strip + s)
        at = s * width(isa)
        ahead, target = fetch + at * job.do_token, scores + s * unit
        _scores(isa, job, k, job.k_token, keys, panel, target, ahead, job.do_token, fetches)
        panel += job.columns * unit
        ahead, target = other + at * other_token, gradients + s * unit
        _scores(isa, job, v, job.v_token, keys, panel, target, ahead, other_token, fetches)
        if masked:
            _bound(isa, job, row + s * width(isa), bounds)
        for column in range(0, unit, 4 * lanes(isa)):
            at = s * unit + column
            state = job.state + STATE * unit * (strip + s) + column
            if masked:
                _weigh_seen(isa, scores + at, gradients + at, key, keys, state, bounds + column)
            else:
                _weigh(isa, scores + at, gradients + at, keys, state)
    if masked and not _all_finite(isa, job, k, keys, q, do, rows):
        _add_seen(job, row, rows, key, keys, scores, gradients, stride, k, q, do, dq, dk, dv)
        return
    width_bytes = 4 * job.columns
    _multiply(isa, scores, stride, 4, keys, do, job.do_token, rows, dv, width_bytes, job.columns)
    _multiply(isa, gradients, stride, 4, keys, q, job.q_token, rows, dk, width_bytes, job.columns)
    # A constant 4 here makes LLVM load neighbouring scalars as a vector and spread them by shuffles whose constants
    # spill the accumulators: half the speed (Zen 5, tiles of 8 x 3).
    _multiply(isa, gradients, job.lane, stride, rows, k, job.k_token, keys, dq, job.dq_token, job.columns)


@jit
def _scores(isa, job, rows, token, keys, panel, target, fetch, fetch_token, fetches):
    """target[key, lane] = rows[key] . panel[:, lane], a tile at a time, while a strip of rows is fetched."""
    step, unit = tile_rows(isa), 4 * width(isa)
    stride = STRIPS * unit
    share = -(-width(isa) * step // BLOCK)
    for j in range(0, keys, step):
        if fetches != NOTHING:
            for row in range(j // step * share, (j // step + 1) * share):
                for at in range(0, 4 * job.columns, LINE):
                    prefetch(fetch + row * fetch_token + at)
        a, c, valid = rows + j * token, target + j * stride, min(step, keys - j)
        multiply_tile(isa, FP32, FULL, 3, a, token, 4, valid, panel, unit, job.head_dim, c, stride, False, 0, 0)


@jit
def _multiply(isa, a, row_stride, k_stride, rows, b, b_stride, steps, c, c_stride, columns):
    """c[row, :] += a[row, :] @ b, tiles as near to three vectors wide as `columns` allows."""
    step, side = tile_rows(isa), 4 * lanes(isa)
    vectors = columns // lanes(isa)
    parts = -(-vectors // 3)
    at = 0
    for part in range(parts):
        count = vectors // parts + (1 if part < vectors % parts else 0)
        for r in range(0, rows, step):
            x, y, z, valid = a + r * row_stride, b + at, c + r * c_stride + at, min(step, rows - r)
            if count == 3:
                multiply_tile(
                    isa, FP32, FULL, 3, x, row_stride, k_stride, valid, y, b_stride, steps, z, c_stride, True, 0, 0
                )
            elif count == 2:
                multiply_tile(
                    isa, FP32, FULL, 2, x, row_stride, k_stride, valid, y, b_stride, steps, z, c_stride, True, 0, 0
                )
            else:
                multiply_tile(
                    isa, FP32, FULL, 1, x, row_stride, k_stride, valid, y, b_stride, steps, z, c_stride, True, 0, 0
                )
        at += count * side


@jit
def _weigh(isa, scores, gradients, keys, state):
    """Scores to weights P and dP to dS, one vector of lanes."""
    unit = 4 * width(isa)
    lse, factor = load(isa, state + LSE * unit), load(isa, state + FACTOR * unit)
    delta = load(isa, state + DELTA * unit)
    for j in range(keys):
        at = STRIPS * unit * j
        weight = exp2(load(isa, scores + at) - lse) * factor
        store(weight, scores + at)
        store(weight * (load(isa, gradients + at) - delta), gradients + at)


@jit
def _weigh_seen(isa, scores, gradients, key, keys, state, bounds):
    """The same, with 0 where a lane doesn't see a key."""
    unit = 4 * width(isa)
    lse, factor = load(isa, state + LSE * unit), load(isa, state + FACTOR * unit)
    delta = load(isa, state + DELTA * unit)
    start, stop = load(isa, bounds), load(isa, bounds + unit)
    zero = splat(isa, np.float32(0))
    for j in range(keys):
        at = STRIPS * unit * j
        weight = exp2(load(isa, scores + at) - lse) * factor
        gradient = weight * (load(isa, gradients + at) - delta)
        store(keep_between(weight, start, stop, key + j, zero), scores + at)
        store(keep_between(gradient, start, stop, key + j, zero), gradients + at)


@jit
def _bound(isa, job, row, bounds):
    """First and last key that each lane of a strip sees, as int32."""
    unit = 4 * width(isa)
    for lane in range(width(isa)):
        first, last = seen_by(job, job.keys, min(row + lane, job.queries - 1))
        store_i32(first, bounds + 4 * lane)
        store_i32(last, bounds + unit + 4 * lane)


@jit
def _seen(job, row, rows):
    """Keys that any of these queries sees, then keys that all of them see."""
    any_first, all_last = seen_by(job, job.keys, row)
    all_first, any_last = seen_by(job, job.keys, row + rows - 1)
    return any_first, any_last, all_first, all_last


@jit
def _all_finite(isa, job, k, keys, q, do, rows):
    """Whether weight 0 hides every one of these rows: 0 times infinity or NaN would not be 0."""
    bad = _times_zero(isa, k, job.k_token, keys, job.columns)
    bad = bad + _times_zero(isa, q, job.q_token, rows, job.columns)
    return lane_sum(bad + _times_zero(isa, do, job.do_token, rows, job.columns)) == 0


@jit
def _times_zero(isa, rows, token, count, columns):
    zero = splat(isa, np.float32(0))
    total = zero
    for row in range(count):
        for c in range(0, columns, lanes(isa)):
            total = fma(load(isa, rows + row * token + 4 * c), zero, total)
    return total


@jit
def _add_seen(job, row, rows, key, keys, scores, gradients, stride, k, q, do, dq, dk, dv):
    """The three products over the visible pairs alone, for rows that hold an infinity or NaN."""
    for lane in range(rows):
        first, last = seen_by(job, job.keys, row + lane)
        for j in range(max(first - key, 0), min(last - key, keys)):
            weight = load_f32(scores + j * stride + 4 * lane)
            gradient = load_f32(gradients + j * stride + 4 * lane)
            for dim in range(0, 4 * job.head_dim, 4):
                _add(dq + lane * job.dq_token + dim, gradient, k + j * job.k_token + dim)
                _add(dk + 4 * j * job.columns + dim, gradient, q + lane * job.q_token + dim)
                _add(dv + 4 * j * job.columns + dim, weight, do + lane * job.do_token + dim)


@jit
def _add(target, factor, source):
    store_f32(load_f32(target) + factor * load_f32(source), target)


@jit
def _kv_row(job, matrix, batch_stride, head_stride, token_stride, head, key):
    """Address of a row of a matrix of K/V heads; `head` counts over batch and heads."""
    return matrix + head // job.kv_heads * batch_stride + head % job.kv_heads * head_stride + key * token_stride


@jit
def _clear(isa, target, count):
    zero = splat(isa, np.float32(0))
    for c in range(0, count, lanes(isa)):
        store(zero, target + 4 * c)


@jit
def _write(isa, job, source, keys, target, token):
    """Rows of a task's sums to where they belong."""
    for j in range(keys):
        for c in range(0, job.columns, lanes(isa)):
            store(load(isa, source + 4 * (j * job.columns + c)), target + j * token + 4 * c)


@jit
def _block_bytes(width, tile_rows):
    """Memory of a block's scores and their gradients, and of the bounds of a strip."""
    return 4 * width * (STRIPS * 2 * (BLOCK + tile_rows) + 2)


def backward_scratch_bytes(isa, columns: int, chunk: int) -> int:
    """Memory that a thread needs: dK and dV of its chunk, what a block needs, what preparing a strip needs."""
    sums = 4 * columns * 2 * (chunk + isa.rows)
    return sums + _block_bytes.py_func(isa.width, isa.rows) + rows_scratch_bytes(isa, columns)
