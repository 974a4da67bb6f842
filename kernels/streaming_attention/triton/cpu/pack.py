"""Operands of a product in the order in which its inner loop reads them."""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import BYTES, V, i64, llvm_type
from streaming_attention.triton.cpu.expressions import parts_of
from streaming_attention.triton.cpu.ir import Operation, Type, Value
from streaming_attention.triton.cpu.lanes import Position, vector
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.prefetch import AHEAD, prefetch, prefetch_next_turn
from streaming_attention.triton.cpu.product import FEW_ROWS, Shape, convert, in_batch, plan_product, runs_along_k
from streaming_attention.triton.cpu.transpose import transpose


def pack_invariant(lowering, loop: Operation) -> None:
    """Pack before a loop what its products read and it doesn't change."""
    for operation in loop.walk():
        if operation.name == "tt.dot" and len(operation.result.type.shape) == 2:
            shape = plan_product(lowering, operation)
            sides = ((0, read_a), (1, pack_b)) if shape.form == "panels" else ((0, read_a),)
            for side, pack in sides:
                operand, key = operation.operands[side], packed_key(operation, side, shape)
                if key not in lowering.packed and is_outside(lowering, operand, loop):
                    lowering.packed[key] = pack(lowering, operand, shape, ())


def packed_key(operation: Operation, side: int, shape: Shape) -> tuple:
    """What tells a packed operand from others, in ``lowering.packed``."""
    return operation.operands[side], side, shape.compute, shape.width, shape.form


def is_outside(lowering, value: Value, loop: Operation) -> bool:
    """Whether a value can be evaluated before a loop."""
    held = lambda part: part in lowering.buffers or part in lowering.scalars  # noqa: E731
    inside = set(loop.walk())
    return all(
        held(part) or not (part.operation is None or part.operation in inside or part in lowering.plan.kept)
        for part in parts_of(value, held)
    )


def read_a(lowering, value: Value, shape: Shape, batch: tuple) -> Buffer:
    """A view of A: its own buffer where that holds the right elements, else a packed copy.

    Returns
    -------
    Buffer
        Of two axes, any strides; pairs need neighbouring k side by side.
    """
    source, swap = value, False
    while (
        source.operation is not None
        and source.operation.name == "tt.trans"
        and source not in lowering.buffers
        and len(source.type.shape) == 2
    ):
        source, swap = source.operation.operands[0], not swap
    held = lowering.buffers.get(source)
    if held is not None and held.element == shape.compute:
        place = 0
        for index, stride in zip(batch, held.strides, strict=False):
            place = lowering.b.add(place, lowering.b.times(index, stride))
        strides = held.strides[-2:][::-1] if swap else held.strides[-2:]
        if (shape.pair == 1 and shape.form != "inner") or strides[1] == 1:
            return Buffer(lowering.b.offset(held.base, place, held.element), shape.compute, strides)
    return _pack_a(lowering, value, shape, batch)


def _pack_a(lowering, value: Value, shape: Shape, batch: tuple) -> Buffer:
    """A copied in the order in which its memory lies, converted."""
    axis = lowering.axis_of(value) - len(batch)
    by_column = axis == 0 and shape.pair == 1 and shape.form != "inner"
    extents = (shape.k, shape.m) if by_column else (shape.m, shape.k)
    target = lowering.allocate(Type(shape.compute, extents))
    if by_column:
        target = Buffer(target.base, target.element, target.strides[::-1])
    for position in lowering.nest((shape.m, shape.k), 0 if by_column else 1):
        lanes = lowering.evaluate(value, in_batch(position, batch))
        converted = convert(lowering.b, lanes, shape.compute)
        target.write(lowering.b, position, vector(shape.compute, converted, position.count))
    return target


def pack_b(lowering, value: Value, shape: Shape, batch: tuple) -> V:
    """B in panels; where its memory runs along k, in-register transposes turn it."""
    base = lowering.reserve(shape.k * shape.n * BYTES[shape.compute])
    along_k = runs_along_k(lowering, value)
    depth = shape.lanes * shape.pair
    if along_k and shape.k >= depth and shape.lanes > 1:
        _pack_turned(lowering, value, shape, batch, base, depth)
    else:
        _pack_straight(lowering, value, shape, batch, base)
    return base


def _panel(b, shape: Shape, base: V, k, n) -> V:
    """Address of B[k, n] in its panels, n a multiple of the lanes."""
    if shape.width == shape.n:
        panel, inside = 0, n
    elif isinstance(n, int):
        panel, inside = divmod(n, shape.width)
    else:
        panel, inside = b.binary("udiv", n, i64(shape.width)), b.binary("urem", n, i64(shape.width))
    row = b.add(b.times(panel, shape.k), k)
    place = b.add(b.times(row, shape.width), b.times(inside, shape.pair))
    return b.offset(base, place, shape.compute)


def _pack_straight(lowering, value: Value, shape: Shape, batch: tuple, base: V) -> None:
    b = lowering.b
    for position in lowering.nest((shape.k // shape.pair, shape.n), 1, shape.lanes):
        k, n = b.times(position.index[0], shape.pair), position.index[1]
        rows = []
        for step in range(shape.pair):
            where = Position((b.add(k, step), n), position.axis, position.count)
            rows.append(convert(b, lowering.evaluate(value, in_batch(where, batch)), shape.compute))
            if shape.m <= FEW_ROWS:
                prefetch(lowering, value, in_batch(where, batch), len(batch), b.add(where.index[0], AHEAD))
            else:
                prefetch_next_turn(lowering, value, in_batch(where, batch))
        if shape.pair == 2:
            order = [side * shape.lanes + lane for lane in range(shape.lanes) for side in (0, 1)]
            rows = [b.shuffle(*rows, order)]
        b.store(rows[0], _panel(b, shape, base, k, n), BYTES[shape.compute])


def _pack_turned(lowering, value: Value, shape: Shape, batch: tuple, base: V, depth: int) -> None:
    """Squares of ``lanes`` columns: vectors along k in, vectors along n out."""
    b, lanes = lowering.b, shape.lanes
    whole = llvm_type("i32", lanes) if shape.pair == 2 else llvm_type(shape.compute, lanes)
    with b.loop(shape.n, lanes) as n, b.loop(shape.k, depth) as k:
        lowering.memo = {}
        rows = []
        for column in range(lanes):
            where = in_batch(Position((k, b.add(n, column)), 0, depth), batch)
            rows.append(b.cast("bitcast", convert(b, lowering.evaluate(value, where), shape.compute), whole))
            prefetch_next_turn(lowering, value, where)
        for place, row in enumerate(transpose(b, rows)):
            b.store(row, _panel(b, shape, base, b.add(k, place * shape.pair), n), BYTES[shape.compute])
    lowering.memo = {}
