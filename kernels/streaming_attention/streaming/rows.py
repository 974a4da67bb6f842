"""Which rows of Q a task of prefill works on, and which keys they see.

The rows of a K/V head are its query heads' rows side by side: row r is query ``r // group`` of query head ``r % group``
of the group. So grouped-query attention needs no copy of K or V, and neighbouring rows see nearly the same keys.
"""

from __future__ import annotations

from typing import NamedTuple

from streaming_attention.simd import jit
from streaming_attention.simd.isa import lanes, width
from streaming_attention.simd.memory import load_i32, load_i64
from streaming_attention.streaming.keys import keys_of


class Rows(NamedTuple):
    """The rows of one K/V head of one sequence; all int64.

    ``head`` counts the K/V heads of all sequences, ``first_head`` is the first query head of the group, ``offset`` the
    key at which query 0 stands. ``q``, ``k``, ``v`` and ``o`` are addresses of the head's first row (for K and V in
    pages they mean nothing), ``lse`` of the sequence's log-sum-exp.
    """

    head: int
    first_head: int
    group: int
    count: int
    keys: int
    offset: int
    q: int
    k: int
    v: int
    o: int
    lse: int


@jit
def task_rows(isa, job, task):
    """The rows that a task belongs to, and its own first row.

    The last rows come first: under a causal mask they see the most keys, and long tasks last leave threads waiting.
    """
    per_task = job.strips * width(isa)
    if job.order != 0:
        code = load_i64(job.order + 8 * task)
        return rows_of(job, code >> 32), (code & 0xFFFFFFFF) * per_task
    tasks_per_head = -(-job.queries * (job.heads // job.kv_heads) // per_task)
    return rows_of(job, task // tasks_per_head), (tasks_per_head - 1 - task % tasks_per_head) * per_task


@jit
def rows_of(job, head):
    """All rows of a K/V head."""
    group = job.heads // job.kv_heads
    batch, kv_head = head // job.kv_heads, head % job.kv_heads
    queries, keys = job.queries, keys_of(job, batch)
    q, k, v = job.q + batch * job.q_batch, job.k + batch * job.k_batch, job.v + batch * job.v_batch
    o, lse = job.o + batch * job.o_batch, job.lse + 4 * batch * job.heads * queries
    if job.q_starts != 0:
        start = load_i32(job.q_starts + 4 * batch)
        queries = load_i32(job.q_starts + 4 * batch + 4) - start
        q, o, lse = job.q + start * job.q_token, job.o + start * job.o_token, job.lse + 4 * start
    if job.k_starts != 0:
        start = load_i32(job.k_starts + 4 * batch)
        keys = load_i32(job.k_starts + 4 * batch + 4) - start
        k, v = job.k + start * job.k_token, job.v + start * job.v_token
    offset = keys - queries + job.offset - (job.keys - job.queries)
    q, o = q + kv_head * group * job.q_head, o + kv_head * group * job.o_head
    k, v = k + kv_head * job.k_head, v + kv_head * job.v_head
    return Rows(head, kv_head * group, group, queries * group, keys, offset, q, k, v, o, lse)


@jit
def seen_by(job, rows, query):
    """First key that a query sees and the one after its last; equal where it sees none."""
    at = query + rows.offset
    first = min(max(at - job.left, 0), rows.keys)
    return first, max(min(at + job.right + 1, rows.keys), first)


@jit
def seen_by_strip(isa, job, rows, row):
    """Keys that any row of a strip sees, then keys that all of them see."""
    last_row = min(row + width(isa), rows.count) - 1
    any_first, all_last = seen_by(job, rows, row // rows.group)
    all_first, any_last = seen_by(job, rows, last_row // rows.group)
    return any_first, any_last, all_first, all_last


@jit
def vectors_of(isa, rows, row):
    """Vectors of a strip that have rows in them."""
    return (min(width(isa), rows.count - row) + lanes(isa) - 1) // lanes(isa)
