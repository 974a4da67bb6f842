"""Square transposes in registers, between rows scattered in memory and panels with a row per lane.

A row of Q or O belongs to a lane. The table of row addresses lets the rows lie anywhere, so heads of a group and
queries mix freely in one panel.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from streaming_attention.simd.vectors import I32, I64, emit_load, emit_store


def emit_transpose(builder, rows: list) -> list:
    """Transpose L vectors of L lanes in log2(L) rounds of two-register shuffles."""
    lanes = len(rows)
    step = 1
    while step < lanes:
        low = [i if not i & step else i - step + lanes for i in range(lanes)]
        high = [i + step if not i & step else i + lanes for i in range(lanes)]
        masks = [ir.Constant(ir.VectorType(I32, lanes), mask) for mask in (low, high)]
        swapped = list(rows)
        for i in range(lanes):
            if not i & step:
                swapped[i] = builder.shuffle_vector(rows[i], rows[i + step], masks[0])
                swapped[i + step] = builder.shuffle_vector(rows[i], rows[i + step], masks[1])
        rows = swapped
        step *= 2
    return rows


@intrinsic
def gather_block(typingctx, isa, table, offset, panel, panel_stride):
    """Panel[c, lane] = row[lane][c] for a square of L columns of 32 bits at byte `offset` of each row.

    Parameters
    ----------
    table : int
        Address of L int64 row addresses.
    offset : int
        Bytes from each row's address to the first column.
    panel, panel_stride : int
        Address of the panel's first row, bytes between its rows.
    """

    def codegen(context, builder, _signature, args):
        _, table, offset, panel, stride = args
        rows = [
            emit_load(builder, builder.add(address, offset), isa.vector) for address in _addresses(builder, isa, table)
        ]
        for c, column in enumerate(emit_transpose(builder, rows)):
            emit_store(builder, column, builder.add(panel, builder.mul(stride, I64(c))))
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(isa, i64, i64, i64, i64), codegen


@intrinsic
def scatter_block(typingctx, isa, table, offset, panel, panel_stride):
    """row[lane][c] = panel[c, lane]: the reverse of :func:`gather_block`."""

    def codegen(context, builder, _signature, args):
        _, table, offset, panel, stride = args
        columns = [
            emit_load(builder, builder.add(panel, builder.mul(stride, I64(c))), isa.vector)
            for c in range(isa.isa.lanes)
        ]
        for address, row in zip(_addresses(builder, isa, table), emit_transpose(builder, columns), strict=True):
            emit_store(builder, row, builder.add(address, offset))
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(isa, i64, i64, i64, i64), codegen


def _addresses(builder, isa, table) -> list:
    return [emit_load(builder, builder.add(table, I64(8 * lane)), I64, 8) for lane in range(isa.isa.lanes)]
