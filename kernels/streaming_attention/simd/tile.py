"""The register tile: a small matrix product whose whole k-loop is one block of LLVM IR.

``C[r, :] += sum_k A[r, k] * B[k, :]`` for `rows` rows r and `vectors` vectors of lanes. Each step loads the
vectors of B once, broadcasts one scalar of A per row, and issues ``rows * vectors`` fused multiply-adds into
accumulators that never leave their registers. Both products of attention are this one tile:

=======  ==========  =====================  =====================  ======================
product  rows r      A[r, k]                B[k, lanes]            C[r, lanes]
=======  ==========  =====================  =====================  ======================
scores   keys        K, along head_dim      Q transposed           scores, a key per row
output   head_dim    V, along keys          weights, a key a row   O transposed
=======  ==========  =====================  =====================  ======================

Lanes are always queries. So K and V are read where they lie, through scalar broadcasts, by whatever strides they
have: nothing is packed but Q, head_dim need not be a multiple of anything, and the maxima and sums of the
softmax are lane by lane, without a horizontal reduction.

Plain Numba loops over the same tile reach 11-23% of the FMA peak; this form 95-99% (Zen 5, AVX-512).
"""

from __future__ import annotations

from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.bf16 import emit_dot
from streaming_attention.simd.convert import WORDS, emit_widening_load
from streaming_attention.simd.known import known_value
from streaming_attention.simd.vectors import (
    F32,
    I64,
    LINE,
    emit_constant,
    emit_fma,
    emit_load,
    emit_max,
    emit_prefetch,
    emit_splat,
    emit_store,
)

FULL = 0
"""As many rows as the ISA has registers for."""

AHEAD = 16
"""Steps by which a full tile prefetches A. The rows of V that a block's tiles read share few sets of the L1 cache, so
each tile has them from L2 again: prefetching them gained 4% of a call, the next keys of a score tile 1% (Zen 5)."""


@intrinsic(prefer_literal=True)
def multiply_tile(
    typingctx,
    isa,
    storage,
    rows,
    vectors,
    a,
    row_stride,
    k_stride,
    valid,
    b,
    b_stride,
    steps,
    c,
    c_stride,
    accumulate,
    fetch,
    fetch_stride,
):
    """One register tile, `rows` by `vectors` vectors.

    Parameters
    ----------
    isa : Isa
    storage : Storage
        Of B; A and C are fp32. With :data:`~.convert.WORDS`, A and B hold pairs of bfloat16 along the sum.
    rows, vectors : Known or literal int
        ``rows * vectors + vectors + 1`` registers are used; `rows` = :data:`FULL` means ``isa.rows``, which fills
        them with ``isa.vectors``.
    a, row_stride, k_stride : int
        Address of ``A[0, 0]``, and bytes from a row and from a step to the next.
    valid : int
        Rows of A that exist, at least 1. The others read the last valid row again, so nothing beyond it is touched;
        C has room for all rows all the same.
    b, b_stride : int
        Address of ``B[0, 0]``; bytes from a step to the next.
    steps : int
        Length of the sum; may be 0.
    c, c_stride : int
        Address of ``C[0, 0]``; bytes from a row to the next.
    accumulate : literal bool
        Add to C, or overwrite it.
    fetch, fetch_stride : int
        Prefetch meanwhile, row by row of B, as many bytes at this address; bytes to the next. With a literal 0, a
        full tile prefetches A, :data:`AHEAD` steps ahead.
    """
    shape = known_value(rows) or isa.isa.rows, known_value(vectors)
    adds = bool(accumulate.literal_value)
    full = known_value(rows) == FULL
    prefetches = not (isinstance(fetch, types.IntegerLiteral) and fetch.literal_value == 0)
    result = types.void(isa, storage, rows, vectors, *[types.int64] * 9, accumulate, types.int64, types.int64)

    def codegen(context, builder, signature, args):
        _, _, _, _, a, row_stride, k_stride, valid, b, b_stride, steps, c, c_stride, _, fetch, fetch_stride = args
        rows = _row_addresses(builder, a, row_stride, valid, shape[0])

        def ahead(k, a_offset):
            if prefetches:
                row = builder.add(fetch, builder.mul(k, fetch_stride))
                for offset in range(0, storage.storage.size * isa.isa.lanes * shape[1], LINE):
                    emit_prefetch(builder, builder.add(row, I64(offset)))
            elif full:
                emit_prefetch(builder, builder.add(rows[0], builder.add(a_offset, builder.mul(k_stride, I64(AHEAD)))))

        out = [builder.add(c, builder.mul(c_stride, I64(row))) for row in range(shape[0])]
        if adds:
            start = [[_lane_load(builder, isa, address, v) for v in range(shape[1])] for address in out]
        else:
            start = [[emit_constant(isa.vector, 0.0)] * shape[1]] * shape[0]
        sums = _emit_k_loop(
            builder,
            isa,
            shape,
            rows,
            k_stride,
            b,
            b_stride,
            steps,
            start,
            storage.storage,
            ahead,
        )
        for address, row in zip(out, sums, strict=True):
            for v, value in enumerate(row):
                emit_store(builder, value, _lane_address(builder, isa, address, v))
        return context.get_dummy_value()

    return result, codegen


@intrinsic(prefer_literal=True)
def score_tile(typingctx, isa, storage, vectors, k, k_token, k_dim, valid, q, steps, scores, peaks):
    """A full tile of scores, :func:`multiply_tile` of K and transposed Q, whose maxima are kept on the way out.

    Meanwhile the keys of the next tile are prefetched, line by line of each in turn.

    Parameters
    ----------
    k, k_token, k_dim, valid : int
        A of the tile, by row (key) and step.
    q, steps : int
        B of the tile, its rows `width` fp32 apart.
    scores : int
        C of the tile, its rows as far apart.
    peaks : int
        Address of a row that becomes the largest score of every lane and of what was there, which is never NaN.
        A pass over the scores saved: 2% of a call with bfloat16 (Zen 5).
    """
    shape = isa.isa.rows, vectors.literal_value

    def codegen(context, builder, _signature, args):
        _, _, _, k, k_token, k_dim, valid, q, steps, scores, peaks = args
        unit = I64(4 * isa.isa.width)
        rows = _row_addresses(builder, k, k_token, valid, shape[0])
        start = [[emit_constant(isa.vector, 0.0)] * shape[1]] * shape[0]
        following = builder.add(k, builder.mul(k_token, I64(shape[0])))

        def ahead(step, _a_offset):
            row, line = builder.urem(step, I64(shape[0])), builder.udiv(step, I64(LINE // 4))
            at = builder.add(following, builder.mul(k_token, row))
            emit_prefetch(builder, builder.add(at, builder.mul(line, I64(LINE))))

        sums = _emit_k_loop(builder, isa, shape, rows, k_dim, q, unit, steps, start, storage.storage, ahead)
        for v, column in enumerate(zip(*sums, strict=True)):
            for row, value in enumerate(column):
                emit_store(
                    builder, value, builder.add(_lane_address(builder, isa, scores, v), I64(unit.constant * row))
                )
            while len(column) > 1:
                column = [emit_max(builder, a, b) for a, b in zip(column[::2], column[1::2], strict=True)]
            peak = emit_max(builder, column[0], _lane_load(builder, isa, peaks, v))
            emit_store(builder, peak, _lane_address(builder, isa, peaks, v))
        return context.get_dummy_value()

    return types.void(isa, storage, vectors, *[types.int64] * 8), codegen


def _row_addresses(builder, a, row_stride, valid, rows: int) -> list:
    """Address of each row of A, those beyond `valid` clamped to the last."""
    last = builder.sub(valid, I64(1))
    addresses = []
    for row in range(rows):
        index = builder.select(builder.icmp_signed("<", I64(row), last), I64(row), last)
        addresses.append(builder.add(a, builder.mul(index, row_stride)))
    return addresses


def _lane_address(builder, isa, address, v: int):
    return builder.add(address, I64(4 * isa.isa.lanes * v))


def _lane_load(builder, isa, address, v: int):
    return emit_load(builder, _lane_address(builder, isa, address, v), isa.vector)


def _emit_k_loop(builder, isa, shape, rows, k_stride, b, b_stride, steps, start, storage, ahead) -> list[list]:
    """The loop over k with its accumulators in phi nodes; returns them. ``ahead(k, a_offset)`` emits prefetches."""
    before = builder.basic_block
    head, body, done = (builder.append_basic_block(f"tile.{name}") for name in ("head", "body", "done"))
    builder.branch(head)

    builder.position_at_end(head)
    k, a_offset, b_address = (builder.phi(I64) for _ in range(3))
    sums = [[builder.phi(isa.vector) for _ in range(shape[1])] for _ in range(shape[0])]
    for phi, value in ((k, I64(0)), (a_offset, I64(0)), (b_address, b)):
        phi.add_incoming(value, before)
    builder.cbranch(builder.icmp_signed("<", k, steps), body, done)

    multiply_add = emit_dot if storage == WORDS else emit_fma
    builder.position_at_end(body)
    places = [builder.add(b_address, I64(storage.size * isa.isa.lanes * v)) for v in range(shape[1])]
    columns = [emit_widening_load(builder, storage, place, isa.vector) for place in places]
    ahead(k, a_offset)
    for r, address in enumerate(rows):
        scalar = emit_load(builder, builder.add(address, a_offset), F32)
        broadcast = emit_splat(builder, isa.vector, scalar)
        for v in range(shape[1]):
            sums[r][v].add_incoming(start[r][v], before)
            sums[r][v].add_incoming(multiply_add(builder, broadcast, columns[v], sums[r][v]), body)
    k.add_incoming(builder.add(k, I64(1)), body)
    a_offset.add_incoming(builder.add(a_offset, k_stride), body)
    b_address.add_incoming(builder.add(b_address, b_stride), body)
    builder.branch(head)

    builder.position_at_end(done)
    return sums
