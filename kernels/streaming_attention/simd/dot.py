"""Scores for decode, where queries are too few to be lanes: lanes run along head_dim.

:func:`dot_tile` multiplies a few rows of Q with a few rows of K: as many pairs as a vector has lanes, so that the sums
over the lanes of all pairs make one vector. Rows of K are read in place, once for all rows of Q in the tile.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.convert import emit_widening_load
from streaming_attention.simd.vectors import (
    I32,
    I64,
    LINE,
    emit_constant,
    emit_fma,
    emit_load,
    emit_prefetch,
    emit_store,
)

MOST_KEYS = 8
"""Rows of K that one loop along head_dim reads: their addresses and the loop's own fit the general registers."""


@intrinsic(prefer_literal=True)
def dot_tile(typingctx, isa, storage, rows, q, q_stride, k, k_token, valid, steps, scores, scores_stride, fetch):
    """scores[row, key] = q[row] . K[key] for ``lanes / rows`` keys.

    Parameters
    ----------
    isa : Isa
    storage : Storage
        Of K.
    rows : literal int
        A power of two, up to the lanes.
    q, q_stride : int
        Address of the first row of Q (fp32), bytes to the next.
    k, k_token : int
        Address of the first row of K, bytes to the next.
    valid : int
        Rows of K that exist, at least 1; the others repeat the last.
    steps : int
        Vectors in a row: head_dim / lanes, which must be whole.
    scores, scores_stride : int
        Address of ``scores[0, 0]``, bytes from a row to the next; keys are 4 bytes apart.
    fetch : int
        Address of rows to prefetch meanwhile, as many and as far apart as those of K.
    """
    count = rows.literal_value
    keys = isa.isa.lanes // count

    def codegen(context, builder, _signature, args):
        _, _, _, q, q_stride, k, k_token, valid, steps, scores, scores_stride, fetch = args
        queries = [builder.add(q, builder.mul(q_stride, I64(row))) for row in range(count)]
        row_bytes = builder.mul(steps, I64(storage.storage.size * isa.isa.lanes))
        totals = []
        for first in range(0, keys, MOST_KEYS):
            some = range(first, min(first + MOST_KEYS, keys))
            places = [_row_address(builder, k, k_token, valid, key) for key in some]
            cursor = _RowCursor(builder, builder.add(fetch, builder.mul(k_token, I64(first))), k_token, row_bytes)
            totals.append(_emit_loop(builder, isa, storage.storage, queries, places, steps, cursor))
        sums = emit_sums(builder, [total for row in range(count) for part in totals for total in part[row]])
        for row in range(count):
            part = ir.Constant(ir.VectorType(I32, keys), list(range(row * keys, (row + 1) * keys)))
            target = builder.add(scores, builder.mul(scores_stride, I64(row)))
            emit_store(builder, builder.shuffle_vector(sums, sums, part), target)
        return context.get_dummy_value()

    return types.void(isa, storage, rows, *[types.int64] * 9), codegen


def _row_address(builder, k, k_token, valid, key: int):
    last = builder.sub(valid, I64(1))
    index = builder.select(builder.icmp_signed("<", I64(key), last), I64(key), last)
    return builder.add(k, builder.mul(index, k_token))


class _RowCursor:
    """Walks over the cache lines of evenly spaced rows, in the order of their addresses, as a loop goes round.

    Prefetching column by column, a line of each row, cost fp32 a tenth of its bandwidth (Zen 5, one core).
    """

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
    cursor.advance(body, max(1, len(keys) * storage.size * lanes // LINE))
    builder.branch(head)

    builder.position_at_end(done)
    return totals


def emit_sums(builder, vectors: list) -> ir.Value:
    """Lane i of the result is the sum over the lanes of vector i; L vectors of L lanes.

    Each round adds the halves of two vectors into one: 2 L - 2 shuffles, where a transpose takes L log2(L).
    """
    lanes = len(vectors)
    size = lanes
    while size > 1:
        half = size // 2
        starts = range(0, lanes, size)
        low = [start + other + i for start in starts for other in (0, lanes) for i in range(half)]
        masks = [ir.Constant(ir.VectorType(I32, lanes), [place + at for place in low]) for at in (0, half)]
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks)) for a, b in pairs]
        size = half
    return vectors[0]
