"""Products of a few rows with rows of memory: ``q k^T`` of decode."""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import BYTES, V, i64, llvm_type
from streaming_attention.triton.cpu.ir import Operation, Value
from streaming_attention.triton.cpu.lanes import Position, vector
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.prefetch import AHEAD, prefetch
from streaming_attention.triton.cpu.product import Shape, convert, fuse, in_batch

LINE = 64
"""Bytes of a cache line."""


def inner_products(lowering, operation: Operation, shape: Shape, batch: tuple, a: Buffer, target: Buffer) -> None:
    """A few rows of A against rows of memory: vectors along k, no packing, one horizontal sum for all at the end."""
    b = lowering.b
    lanes = lowering.target.lanes // (2 if shape.compute == "f64" else 1)
    columns = min(shape.n, lanes // shape.m)
    depth = lanes * shape.pair
    kind = llvm_type(shape.sums, lanes)
    with b.loop(shape.n, columns) as n:
        slots = [[b.slot(kind) for _ in range(columns)] for _ in range(shape.m)]
        for slot in [slot for row in slots for slot in row]:
            b.write(slot, V(kind, "zeroinitializer"))
        with b.loop(shape.k, depth) as k:
            lowering.memo = {}
            along = [in_batch(Position((k, b.add(n, column)), 0, depth), batch) for column in range(columns)]
            right = [convert(b, lowering.evaluate(operation.operands[1], place), shape.compute) for place in along]
            _prefetch_tile(lowering, operation.operands[1], shape, batch, (k, n), columns, depth)
            for row in range(shape.m):
                left = b.load(llvm_type(shape.compute, depth), a.address(b, (row, k)), BYTES[shape.compute])
                for slot, part in zip(slots[row], right, strict=True):
                    b.write(slot, fuse(b, shape, left, part, b.read(slot, kind)))
        lowering.memo = {}
        sums = sum_lanes(b, [b.read(slot, kind) for slot in [slot for row in slots for slot in row]])
        for row in range(shape.m):
            place = in_batch(Position((row, n), 1 if columns > 1 else None, columns), batch)
            part = sums if shape.m == 1 else _columns(b, sums, row * columns, columns)
            start = convert(b, lowering.evaluate(operation.operands[2], place), shape.sums)
            total = b.binary("add" if shape.compute == "i32" else "fadd", part, start)
            element = target.element
            done = convert(b, vector(shape.sums, total, columns), element)
            target.write(b, place, vector(element, done, columns))
    lowering.memo = {}


def _prefetch_tile(lowering, value: Value, shape: Shape, batch: tuple, at: tuple, columns: int, depth: int) -> None:
    """One step's share of the rows to come, line after line: memory likes that better than the tile's own order."""
    b, (k, n) = lowering.b, at
    elements = LINE // BYTES[value.type.element]
    lines = max(1, shape.k // elements)
    first = b.times(_divide(b, k, depth), columns)
    for line in range(0, columns, max(1, depth // elements)):
        place = b.add(first, line)
        row, inside = _divide(b, place, lines), _rest(b, place, lines)
        where = in_batch(Position((b.times(inside, elements), n), 0, depth), batch)
        prefetch(lowering, value, where, len(batch) + 1, b.add(b.add(n, max(AHEAD, columns)), row))


def _divide(b, value, by: int):
    return value // by if isinstance(value, int) else b.binary("udiv", value, i64(by))


def _rest(b, value, by: int):
    return value % by if isinstance(value, int) else b.binary("urem", value, i64(by))


def _columns(b, sums: V, first: int, count: int) -> V:
    if count == 1:
        return b.extract(sums, first)
    return b.shuffle(sums, None, list(range(first, first + count)))


def sum_lanes(b, vectors: list[V]) -> V:
    """The horizontal sum of each vector, side by side: halves of all are added at once, log2(lanes) times."""
    width = int(vectors[0].type[1:].split(" x ")[0])
    name = "add" if vectors[0].type.endswith("i32>") else "fadd"
    block = width
    while block > 1:
        if len(vectors) > 1:
            blocks = 2 * width // block
            firsts = [place * block + lane for place in range(blocks) for lane in range(block // 2)]
            pairs = [(vectors[i], vectors[i + 1]) for i in range(0, len(vectors), 2)]
        else:
            blocks = int(vectors[0].type[1:].split(" x ")[0]) // block
            firsts = [place * block + lane for place in range(blocks) for lane in range(block // 2)]
            pairs = [(vectors[0], None)]
        seconds = [lane + block // 2 for lane in firsts]
        vectors = [b.binary(name, b.shuffle(x, y, firsts), b.shuffle(x, y, seconds)) for x, y in pairs]
        block //= 2
    return vectors[0] if not vectors[0].type.startswith("<1 ") else b.extract(vectors[0], 0)
