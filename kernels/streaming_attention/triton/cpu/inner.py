"""Products of a few rows with rows of memory: ``q k^T`` of decode."""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import BYTES, V, llvm_type
from streaming_attention.triton.cpu.ir import Operation
from streaming_attention.triton.cpu.lanes import Position, vector
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.prefetch import AHEAD, prefetch
from streaming_attention.triton.cpu.product import Shape, convert, fuse, in_batch

LINE = 64
"""Bytes of a cache line."""
UNROLL = 16
"""Vectors of a row that are written out, so that the rows of A may stay in registers."""
AHEAD_BYTES = 8192
"""Between a row and the one that is asked for meanwhile, where rows are short: fewer of them would come too late."""


def inner_products(lowering, operation: Operation, shape: Shape, batch: tuple, a: Buffer, target: Buffer) -> None:
    """A few rows of A against rows of memory: vectors along k, no packing, one horizontal sum for all at the end.

    Rows of memory are read one after the other: sixteen at a time, vector by vector, a read of them lost a tenth.
    """
    b = lowering.b
    lanes = lowering.target.lanes // (2 if shape.compute == "f64" else 1)
    columns = min(shape.n, lanes // shape.m)
    kind = llvm_type(shape.sums, lanes)
    totals = b.slot(f"[{shape.m * columns} x {kind}]")
    with b.loop(shape.n, columns) as n:
        with b.loop(columns) as column:
            for row, sums in enumerate(_one_row(lowering, operation, shape, batch, a, b.add(n, column), lanes)):
                place = b.times(b.add(column, row * columns), lanes)
                b.write(b.offset(totals, place, shape.sums), sums)
        lowering.memo = {}
        places = range(0, shape.m * columns * lanes, lanes)
        sums = sum_lanes(b, [b.read(b.offset(totals, place, shape.sums), kind) for place in places])
        for row in range(shape.m):
            place = in_batch(Position((row, n), 1 if columns > 1 else None, columns), batch)
            part = sums if shape.m == 1 else _columns(b, sums, row * columns, columns)
            start = convert(b, lowering.evaluate(operation.operands[2], place), shape.sums)
            total = b.binary("add" if shape.compute == "i32" else "fadd", part, start)
            element = target.element
            done = convert(b, vector(shape.sums, total, columns), element)
            target.write(b, place, vector(element, done, columns))
    lowering.memo = {}


def _one_row(lowering, operation: Operation, shape: Shape, batch: tuple, a: Buffer, n, lanes: int) -> list[V]:
    """Products of row n of memory with each row of A, not yet summed over the lanes; rows further on are asked for."""
    b, value, depth = lowering.b, operation.operands[1], lanes * shape.pair
    kind, size = llvm_type(shape.sums, lanes), BYTES[value.type.element]
    slots = [b.slot(kind) for _ in range(shape.m)]
    for slot in slots:
        b.write(slot, V(kind, "zeroinitializer"))
    ahead = b.add(n, max(AHEAD, AHEAD_BYTES // (shape.k * size)))
    unroll = next(many for many in (UNROLL, 8, 4, 2, 1) if shape.k % (many * depth) == 0)
    with b.loop(shape.k, unroll * depth) as first:
        lowering.memo = {}
        for step in range(unroll):
            k = b.add(first, step * depth)
            place = in_batch(Position((k, n), 0, depth), batch)
            if step * depth * size % LINE == 0:
                prefetch(lowering, value, place, len(batch) + 1, ahead)
            right = convert(b, lowering.evaluate(value, place), shape.compute)
            for row, slot in enumerate(slots):
                left = b.load(llvm_type(shape.compute, depth), a.address(b, (row, k)), BYTES[shape.compute])
                b.write(slot, fuse(b, shape, left, right, b.read(slot, kind)))
    lowering.memo = {}
    return [b.read(slot, kind) for slot in slots]


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
