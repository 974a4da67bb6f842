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

All five are the forward's register tile (:mod:`..simd.tile`). Of bfloat16 they multiply words: the sum over head_dim
takes rows as they are, those over queries and keys take neighbouring rows by pairs (:mod:`.backward_rows`).

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
from streaming_attention.simd.convert import FP32, WORDS
from streaming_attention.simd.isa import lanes, tile_rows, width
from streaming_attention.simd.memory import atomic_load, atomic_store, pause
from streaming_attention.simd.operand import are_words
from streaming_attention.simd.vectors import load, splat, store
from streaming_attention.streaming.backward_job import backward_job_at
from streaming_attention.streaming.backward_products import AHEAD, HERE, NOTHING, Keys, cut, differentiate, kv_row
from streaming_attention.streaming.backward_rows import pair_rows, prepare_strip, rows_scratch_bytes
from streaming_attention.streaming.backward_weights import BLOCK, STRIPS, score_bytes
from streaming_attention.streaming.keys import seen_by


@njit(nogil=True, error_model="numpy", cache=True)
def backward_task(isa, job, task, scratch):
    """Kernel with fp32 tiles: a chunk of keys of one K/V head against all queries that see them."""
    _backward(isa, FP32, job, task, scratch)


@njit(nogil=True, error_model="numpy", cache=True)
def backward_words(isa, job, task, scratch):
    """Kernel whose tiles multiply pairs of bfloat16, for arrays that hold bfloat16."""
    _backward(isa, WORDS, job, task, scratch)


@jit
def _backward(isa, tile, job_address, task, scratch):
    job = backward_job_at(job_address)
    heads = job.batch * job.kv_heads
    head, first_key = task % heads, task // heads * job.chunk
    group, run = job.heads // job.kv_heads, STRIPS * width(isa)
    runs = -(-job.queries // run)
    count = min(job.chunk, job.keys - first_key)
    keys, scores = _open_chunk(isa, tile, job, head, first_key, count, scratch)
    spare = scores + score_bytes(width(isa), tile_rows(isa))
    for turn in range(group * runs):
        query_head, row = head * group + turn // runs, (runs - 1 - turn % runs) * run
        rows = min(run, job.queries - row)
        first, last, _, _ = _seen(job, row, rows)
        begins = first_key <= max(min(first, job.keys - 1), 0) < first_key + job.chunk
        if begins:
            for at in range(row, row + rows, width(isa)):
                prepare_strip(isa, tile, job, query_head, at, spare)
        if first >= first_key + count or last <= first_key:
            continue
        _wait(job, task, heads, turn)
        for block in range(0, count, BLOCK):
            some = cut(job, keys, block, min(block + BLOCK, count))
            fetches = (AHEAD if begins else HERE) if block == 0 else NOTHING
            _attend(isa, tile, job, head, query_head, row, some, fetches, scores)
        atomic_store(turn + 1, job.progress + 8 * task)
    _wait(job, task, heads, group * runs - 1)
    atomic_store(group * runs, job.progress + 8 * task)
    dk = kv_row(job, job.dk, job.dk_batch, job.dk_head, job.dk_token, head, first_key)
    dv = kv_row(job, job.dv, job.dv_batch, job.dv_head, job.dv_token, head, first_key)
    _write(isa, job, keys.dk, count, dk, job.dk_token)
    _write(isa, job, keys.dv, count, dv, job.dv_token)


@jit
def _open_chunk(isa, tile, job, head, first, count, scratch):
    """The task's keys, their sums at 0; and where the scratch memory goes on."""
    padded = -(-count // tile_rows(isa)) * tile_rows(isa)
    dv = scratch + 4 * padded * job.columns
    pairs = dv + 4 * padded * job.columns
    _clear(isa, scratch, 2 * padded * job.columns)
    end = pairs
    if are_words(tile):
        end = pairs + 2 * padded * job.columns
        _clear(isa, end, job.columns)
        k = kv_row(job, job.k, job.k_batch, job.k_head, job.k_token, head, first)
        pair_rows(isa, job, k, job.k_token, count, pairs, end)
    return Keys(first, count, scratch, dv, pairs), end


@jit
def _wait(job, task, heads, turn):
    """Until the head's task before this one has passed a run of queries."""
    if task >= heads:
        while atomic_load(job.progress + 8 * (task - heads)) <= turn:
            pause()


@jit
def _attend(isa, tile, job, head, query_head, row, keys, fetches, scores):
    """A block of keys and a run of queries: whole where all see all, else strip by strip, cut to what it sees."""
    rows = min(STRIPS * width(isa), job.queries - row)
    _, _, full_first, full_last = _seen(job, row, rows)
    if full_first <= keys.first and keys.first + keys.count <= full_last:
        differentiate(isa, tile, job, head, query_head, row, rows, keys, fetches, False, scores)
        return
    step = tile_rows(isa)
    for at in range(row, row + rows, width(isa)):
        count = min(width(isa), row + rows - at)
        first, last, full_first, full_last = _seen(job, at, count)
        low, high = max(first - keys.first, 0), min(last - keys.first, keys.count)
        if low < high:
            # Whole tiles: a tile writes all its rows, and those that nobody sees get zeros added.
            some = cut(job, keys, low // step * step, min(-(-high // step) * step, keys.count))
            masked = some.first < full_first or some.first + some.count > full_last
            differentiate(isa, tile, job, head, query_head, at, count, some, fetches, masked, scores)


@jit
def _seen(job, row, rows):
    """Keys that any of these queries sees, then keys that all of them see."""
    any_first, all_last = seen_by(job, job.keys, row)
    all_first, any_last = seen_by(job, job.keys, row + rows - 1)
    return any_first, any_last, all_first, all_last


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


def backward_scratch_bytes(isa, columns: int, chunk: int) -> int:
    """Memory that a thread needs: dK, dV and K by pairs of its chunk; what a block and preparing a strip need."""
    of_chunk = 10 * columns * (chunk + isa.rows)
    return of_chunk + score_bytes.py_func(isa.width, isa.rows) + rows_scratch_bytes(isa, columns)
