"""Scores for decode, where queries are too few to be lanes: lanes run along head_dim.

:func:`dot_tile` multiplies a few rows of Q with a few rows of K and leaves one vector of partial sums per pair;
:func:`sum_lanes` later turns L such vectors into a vector of L sums. Apart, because the first then reads K in the order
of its addresses with little in between, as fast as memory delivers. With L keys at a time and the sums at the end of
each tile it reached 27 of 36 GB/s (Zen 5, one core), with prefetching 33.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.convert import emit_widening_load
from streaming_attention.simd.transpose import emit_transpose
from streaming_attention.simd.vectors import (
    I64,
    LINE,
    Vector,
    emit_constant,
    emit_fma,
    emit_load,
    emit_prefetch,
    emit_store,
)


@intrinsic(prefer_literal=True)
def dot_tile(
    typingctx, isa, storage, rows, keys, q, q_stride, k, k_token, valid, steps, sums, sums_stride, fetch, fetch_token
):
    """sums[row, key, :] = lane-wise sums of q[row] * K[key] over head_dim.

    Parameters
    ----------
    isa : Isa
    storage : Storage
        Of K.
    rows, keys : literal int
        ``rows * keys`` sums are kept in registers. Several are needed to hide the latency of additions.
    q, q_stride : int
        Address of the first row of Q (fp32), bytes to the next.
    k, k_token : int
        Address of the first row of K, bytes to the next.
    valid : int
        Rows of K that exist, at least 1; the others repeat the last.
    steps : int
        Vectors in a row: head_dim / L, which must be whole.
    sums, sums_stride : int
        Address of ``sums[0, 0]``, bytes from a row to the next; keys are a vector apart.
    fetch, fetch_token : int
        Address of as many other rows to prefetch meanwhile, bytes from one to the next; or literal 0 for none.
    """
    shape = rows.literal_value, keys.literal_value
    prefetches = not (isinstance(fetch, types.IntegerLiteral) and fetch.literal_value == 0)

    def codegen(context, builder, _signature, args):
        _, _, _, _, q, q_stride, k, k_token, valid, steps, sums, sums_stride, fetch, fetch_token = args
        last = builder.sub(valid, I64(1))
        keys = []
        for key in range(shape[1]):
            index = builder.select(builder.icmp_signed("<", I64(key), last), I64(key), last)
            keys.append(builder.add(k, builder.mul(index, k_token)))
        queries = [builder.add(q, builder.mul(q_stride, I64(row))) for row in range(shape[0])]
        cursor = RowCursor(builder, fetch, fetch_token, builder.mul(steps, I64(storage.storage.size * isa.isa.lanes)))
        loop = _emit_loop(builder, isa, storage.storage, queries, keys, steps, cursor if prefetches else None)
        for row, totals in enumerate(loop):
            target = builder.add(sums, builder.mul(sums_stride, I64(row)))
            for key, total in enumerate(totals):
                emit_store(builder, total, builder.add(target, I64(4 * isa.isa.lanes * key)))
        return context.get_dummy_value()

    return types.void(isa, storage, rows, keys, *[types.int64] * 10), codegen


class RowCursor:
    """Walks over the cache lines of evenly spaced rows, in the order of their addresses, as a loop goes round."""

    def __init__(self, builder, first, row_stride, row_bytes):
        self.builder, self.first, self.row_bytes = builder, first, row_bytes
        self.gap = builder.sub(row_stride, row_bytes)

    def open(self, before):
        """Place the cursor's phi nodes at the loop's head; `before` is the block that enters it."""
        self.address, self.column = self.builder.phi(I64), self.builder.phi(I64)
        self.address.add_incoming(self.first, before)
        self.column.add_incoming(I64(0), before)

    def advance(self, body, lines: int):
        """Prefetch so many lines in the loop's body."""
        builder, address, column = self.builder, self.address, self.column
        for _ in range(lines):
            emit_prefetch(builder, address)
            column = builder.add(column, I64(LINE))
            wraps = builder.icmp_signed(">=", column, self.row_bytes)
            address = builder.add(builder.add(address, I64(LINE)), builder.select(wraps, self.gap, I64(0)))
            column = builder.select(wraps, I64(0), column)
        self.address.add_incoming(address, body)
        self.column.add_incoming(column, body)


def _emit_loop(builder, isa, storage, queries, keys, steps, cursor) -> list[list]:
    """The loop along head_dim; returns the accumulators by row and key."""
    lanes = isa.isa.lanes
    before = builder.basic_block
    head, body, done = (builder.append_basic_block(f"dot.{name}") for name in ("head", "body", "done"))
    builder.branch(head)

    builder.position_at_end(head)
    step, q_offset, k_offset = (builder.phi(I64) for _ in range(3))
    totals = [[builder.phi(isa.vector) for _ in keys] for _ in queries]
    for phi in (step, q_offset, k_offset):
        phi.add_incoming(I64(0), before)
    if cursor:
        cursor.open(before)
    builder.cbranch(builder.icmp_signed("<", step, steps), body, done)

    builder.position_at_end(body)
    loaded = [emit_widening_load(builder, storage, builder.add(key, k_offset), isa.vector) for key in keys]
    for query, row in zip(queries, totals, strict=True):
        values = emit_load(builder, builder.add(query, q_offset), isa.vector)
        for key, total in zip(loaded, row, strict=True):
            total.add_incoming(emit_constant(isa.vector, 0.0), before)
            total.add_incoming(emit_fma(builder, key, values, total), body)
    for phi, size in ((step, 1), (q_offset, 4 * lanes), (k_offset, storage.size * lanes)):
        phi.add_incoming(builder.add(phi, I64(size)), body)
    if cursor:
        cursor.advance(body, max(1, len(keys) * storage.size * lanes // LINE))
    builder.branch(head)

    builder.position_at_end(done)
    return totals


@intrinsic
def sum_lanes(typingctx, isa, sums):
    """Vector whose lane i is the sum over the lanes of the i-th vector at `sums`."""

    def codegen(_context, builder, _signature, args):
        lanes = isa.isa.lanes
        addresses = [builder.add(args[1], I64(4 * lanes * lane)) for lane in range(lanes)]
        vectors = emit_transpose(builder, [emit_load(builder, address, isa.vector) for address in addresses])
        return _emit_tree_sum(builder, vectors)

    return Vector(isa.isa.lanes)(isa, types.int64), codegen


def _emit_tree_sum(builder, vectors: list) -> ir.Value:
    """Sum of vectors, in pairs: a fixed order, short chains."""
    while len(vectors) > 1:
        vectors = [builder.fadd(a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]
