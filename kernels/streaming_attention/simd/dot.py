"""Scores for decode, where queries are too few to be lanes: lanes run along head_dim.

:func:`dot_tile` multiplies a few rows of Q with a few rows of K: as many pairs as a vector has lanes, so that the sums
over the lanes of all pairs make one vector. Rows of K are read in place, once for all rows of Q in the tile.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from streaming_attention.simd.convert import emit_widening_load
from streaming_attention.simd.known import KnownType, known_value
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


@intrinsic(prefer_literal=True)
def dot_tile(typingctx, isa, storage, rows, q, q_stride, k, k_token, valid, dims, scores, scores_stride, fetch):
    """scores[row, key] = q[row] . K[key] for ``lanes / rows`` keys.

    Parameters
    ----------
    isa : Isa
    storage : Storage
        Of K.
    rows : Known or literal int
        A power of two, up to the lanes.
    q, q_stride : int
        Address of the first row of Q (fp32), bytes to the next.
    k, k_token : int
        Address of the first row of K, bytes to the next.
    valid : int
        Rows of K that exist, at least 1; the others repeat the last. A literal that covers all of them spares the
        question.
    dims : int or Known
        Elements of a row, whole vectors.
    scores, scores_stride : int
        Address of ``scores[0, 0]``, bytes from a row to the next; keys are 4 bytes apart.
    fetch : int
        Address of rows to prefetch meanwhile, as many and as far apart as those of K.
    """
    count = known_value(rows)
    keys = isa.isa.lanes // count
    full = isinstance(valid, types.IntegerLiteral) and valid.literal_value >= keys

    def codegen(context, builder, _signature, args):
        _, _, _, q, q_stride, k, k_token, valid, length, scores, scores_stride, fetch = args
        columns = dims.value if isinstance(dims, KnownType) else length
        queries = [builder.add(q, builder.mul(q_stride, I64(row))) for row in range(count)]
        row_sums = _RowSums(builder, isa, storage.storage, queries, columns)
        totals = cgutils.alloca_once(builder, isa.vector, size=isa.isa.lanes)
        last = I64(keys - 1) if full else builder.sub(valid, I64(1))
        with cgutils.for_range(builder, I64(keys), intp=I64) as loop:
            key = loop.index
            exists = key if full else builder.select(builder.icmp_signed("<", key, last), key, last)
            place = builder.add(k, builder.mul(exists, k_token))
            ahead = builder.add(fetch, builder.mul(key, k_token))
            for row, total in enumerate(row_sums.emit(place, ahead)):
                builder.store(total, builder.gep(totals, [builder.add(key, I64(row * keys))]))
        vectors = [builder.load(builder.gep(totals, [I64(at)])) for at in range(isa.isa.lanes)]
        sums = emit_sums(builder, vectors)
        for row in range(count):
            part = ir.Constant(ir.VectorType(I32, keys), list(range(row * keys, (row + 1) * keys)))
            target = builder.add(scores, builder.mul(scores_stride, I64(row)))
            emit_store(builder, builder.shuffle_vector(sums, sums, part), target)
        return context.get_dummy_value()

    given = dims if isinstance(dims, KnownType) else types.int64
    return types.void(
        isa, storage, rows, *[types.int64] * 4, valid if full else types.int64, given, *[types.int64] * 3
    ), codegen


class _RowSums:
    """Products of a row of K with each row of Q, a vector of sums each; Q stays in registers where dims are known."""

    def __init__(self, builder, isa, storage, queries, dims):
        self.builder, self.vector, self.storage, self.queries, self.dims = builder, isa.vector, storage, queries, dims
        self.known = isinstance(dims, int)
        self.values = [self._queries(I64(c)) for c in range(0, dims, self.vector.count)] if self.known else None

    def emit(self, place, line) -> list:
        """Sums of the row of K at `place`, while the row at `line` is prefetched."""
        zero = [emit_constant(self.vector, 0.0)] * len(self.queries)
        return self._straight(place, line, zero) if self.known else self._loop(place, line, zero)

    def _straight(self, place, line, totals):
        size = self.storage.size
        for offset in range(0, self.dims * size, LINE):
            emit_prefetch(self.builder, self.builder.add(line, I64(offset)))
        for step, values in enumerate(self.values):
            totals = self._add(place, I64(step * self.vector.count), values, totals)
        return totals

    def _loop(self, place, line, totals):
        builder, slots = self.builder, [cgutils.alloca_once(self.builder, self.vector) for _ in totals]
        for slot, total in zip(slots, totals, strict=True):
            builder.store(total, slot)
        with cgutils.for_range_slice(builder, I64(0), self.dims, I64(self.vector.count), intp=I64) as (column, _):
            emit_prefetch(builder, builder.add(line, builder.mul(column, I64(self.storage.size))))
            totals = self._add(place, column, self._queries(column), [builder.load(slot) for slot in slots])
            for slot, total in zip(slots, totals, strict=True):
                builder.store(total, slot)
        return [builder.load(slot) for slot in slots]

    def _queries(self, column):
        offset = self.builder.mul(column, I64(4))
        return [emit_load(self.builder, self.builder.add(query, offset), self.vector) for query in self.queries]

    def _add(self, place, column, values, totals):
        at = self.builder.add(place, self.builder.mul(column, I64(self.storage.size)))
        loaded = emit_widening_load(self.builder, self.storage, at, self.vector)
        return [emit_fma(self.builder, loaded, value, total) for value, total in zip(values, totals, strict=True)]


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
