"""Dot products of one row with as many rows as a vector has lanes, for decode, where queries are too few for lanes.

``scores[j] = q . K[j]`` for L keys j: L accumulators along head_dim, then one transpose turns their L horizontal sums
into a vector over keys.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .transpose import emit_transpose
from .vectors import I64, LINE, Vector, emit_constant, emit_fma, emit_load, emit_prefetch


@intrinsic(prefer_literal=True)
def dot_rows(typingctx, isa, q, k, k_token, valid, steps, ahead):
    """Vector of the dot products of `q` with L rows of K, both contiguous fp32.

    Parameters
    ----------
    isa : Isa
    q, k, k_token : int
        Addresses of the rows, bytes from a row of K to the next.
    valid : int
        Rows of K that exist, at least 1; the others repeat the last.
    steps : int
        Vectors in a row: head_dim / L, which must be whole.
    ahead : int, or literal 0
        Prefetch the rows that lie this many bytes after each row; 0 for none.
    """
    prefetches = not (isinstance(ahead, types.IntegerLiteral) and ahead.literal_value == 0)
    lanes = isa.isa.lanes
    size = 4 * lanes

    def codegen(_context, builder, _signature, args):
        _, q, k, k_token, valid, steps, ahead = args
        last = builder.sub(valid, I64(1))
        rows = []
        for lane in range(lanes):
            index = builder.select(builder.icmp_signed("<", I64(lane), last), I64(lane), last)
            rows.append(builder.add(k, builder.mul(index, k_token)))
        sums = _emit_loop(builder, isa, q, rows, steps, size, ahead if prefetches else None)
        return _emit_tree_sum(builder, emit_transpose(builder, sums))

    result = Vector(lanes)(isa, *[types.int64] * 6)
    return result, codegen


def _emit_loop(builder, isa, q, rows, steps, size: int, ahead) -> list:
    before = builder.basic_block
    head, body, done = (builder.append_basic_block(f"dot.{name}") for name in ("head", "body", "done"))
    end = builder.mul(steps, I64(size))
    builder.branch(head)

    builder.position_at_end(head)
    offset = builder.phi(I64)
    sums = [builder.phi(isa.vector) for _ in rows]
    offset.add_incoming(I64(0), before)
    builder.cbranch(builder.icmp_signed("<", offset, end), body, done)

    builder.position_at_end(body)
    query = emit_load(builder, builder.add(q, offset), isa.vector)
    for row, total in zip(rows, sums, strict=True):
        address = builder.add(row, offset)
        if ahead is not None:
            for line in range(0, size, LINE):
                emit_prefetch(builder, builder.add(builder.add(address, ahead), I64(line)))
        total.add_incoming(emit_constant(isa.vector, 0.0), before)
        total.add_incoming(emit_fma(builder, emit_load(builder, address, isa.vector), query, total), body)
    offset.add_incoming(builder.add(offset, I64(size)), body)
    builder.branch(head)

    builder.position_at_end(done)
    return sums


def _emit_tree_sum(builder, vectors: list) -> ir.Value:
    """Sum of vectors, in pairs: a fixed order, short chains."""
    while len(vectors) > 1:
        vectors = [builder.fadd(a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]
