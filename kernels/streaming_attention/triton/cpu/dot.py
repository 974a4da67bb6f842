"""``tt.dot``: a matrix product as a register tile of fused multiply-adds.

``D[M, N] = A[M, K] B[K, N] + C``. B is packed into panels ``[N / width][K][width]`` so that the inner loop reads it in
order; A is read element by element and broadcast, so any strides of it will do. A tile of ``rows`` x ``vectors``
accumulators starts as C, evaluated right there (``acc * alpha[:, None]`` costs no pass of its own), runs over all of K
in registers and is stored once.

Operands of bf16 use the bf16 dot of AVX-512 where the CPU has it: pairs of neighbouring k in 32 bits, f32 sums. All
other half precisions are widened while packing, so that products and sums are f32.
"""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import BYTES, V, llvm_type
from streaming_attention.triton.cpu.inner import inner_products
from streaming_attention.triton.cpu.ir import Operation
from streaming_attention.triton.cpu.lanes import Position, vector
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.pack import pack_b, packed_key, read_a
from streaming_attention.triton.cpu.prefetch import AHEAD, prefetch
from streaming_attention.triton.cpu.product import Shape, convert, fuse, plan_product

UNROLL = 4
"""Steps along k that the inner loop writes out."""


def lower_dot(lowering, operation: Operation) -> None:
    """``tt.dot``, a matrix at a time where it has a batch."""
    kind = operation.result.type
    target = lowering.in_place.get(operation.result) or lowering.allocate(kind)
    right = operation.operands[1]
    shape = lowering.packed_as.get(right) or plan_product(lowering, operation)
    mark = lowering.used
    for outer in lowering.nest(kind.shape[:-2], None):
        batch = outer.index
        a = _operand(lowering, operation, 0, shape, batch, read_a)
        if shape.form == "inner":
            inner_products(lowering, operation, shape, batch, a, target)
        else:
            panels = None if shape.form == "direct" else _operand(lowering, operation, 1, shape, batch, pack_b)
            if right in lowering.plan.packed_once:
                lowering.packed[packed_key(operation, 1, shape)] = panels
                lowering.packed_as[right], mark = shape, lowering.used
            _multiply(lowering, operation, shape, batch, a, panels, target)
        lowering.used = mark
    lowering.buffers[operation.result] = target


def _operand(lowering, operation: Operation, side: int, shape: Shape, batch: tuple, pack):
    packed = lowering.packed.get(packed_key(operation, side, shape))
    return packed if packed is not None else pack(lowering, operation.operands[side], shape, batch)


def _multiply(lowering, operation, shape: Shape, batch: tuple, a: Buffer, panels: V | None, target: Buffer) -> None:
    """All tiles: panels of B outside, so that a panel stays in cache while A passes by."""
    b = lowering.b
    with b.loop(shape.n, shape.width) as n:
        panel = None if panels is None else b.offset(panels, b.times(n, shape.k), shape.compute)
        first = 0
        for rows, count in row_tiles(shape.m, shape.rows):
            with b.loop(count) as turn:
                m = b.add(b.times(turn, rows), first)
                _Tile(lowering, operation, shape, batch, a, panel, target).run(m, n, rows)
            first += rows * count
    lowering.memo = {}


def row_tiles(m: int, most: int) -> list[tuple[int, int]]:
    """Split rows into tiles that differ by one row at most: ``[(rows, count), ...]``."""
    count = -(-m // most)
    rows, larger = divmod(m, count)
    return [(size, number) for size, number in ((rows + 1, larger), (rows, count - larger)) if number]


class _Tile:
    """One register tile of D."""

    def __init__(self, lowering, operation, shape: Shape, batch: tuple, a: Buffer, panel: V | None, target: Buffer):
        self.lowering, self.operation, self.shape, self.batch = lowering, operation, shape, batch
        self.a, self.panel, self.target = a, panel, target
        self.kind = llvm_type(shape.sums, shape.lanes)

    def run(self, m, n, rows: int) -> None:
        b, shape = self.lowering.b, self.shape
        places = [
            (row, b.add(m, row), b.add(n, v * shape.lanes), v) for row in range(rows) for v in range(shape.vectors)
        ]
        slots = {(row, v): b.slot(self.kind) for row, _, _, v in places}
        self.lowering.memo = {}
        for row, i, j, v in places:
            b.write(slots[row, v], self._start(i, j))
        address = self.a.address(b, (m, 0))
        steps = shape.k // shape.pair
        unroll = next(size for size in (UNROLL, 2, 1) if steps % size == 0)
        with b.loop(steps, unroll) as k:
            for step in range(unroll):
                self._step(address, b.add(k, step), n, slots, rows)
        self.lowering.memo = {}
        for row, i, j, v in places:
            self._finish(i, j, b.read(slots[row, v], self.kind))

    def _position(self, i, j) -> Position:
        axis = len(self.batch) + 1 if self.shape.lanes > 1 else None
        return Position((*self.batch, i, j), axis, self.shape.lanes)

    def _start(self, i, j) -> V:
        """The accumulator's first value: C there."""
        lanes = self.lowering.evaluate(self.operation.operands[2], self._position(i, j))
        return convert(self.lowering.b, lanes, self.shape.sums)

    def _finish(self, i, j, value: V) -> None:
        lanes = vector(self.shape.sums, value, self.shape.lanes)
        element = self.target.element
        self.target.write(
            self.lowering.b,
            self._position(i, j),
            vector(element, convert(self.lowering.b, lanes, element), self.shape.lanes),
        )

    def _row_of_b(self, k, n) -> list[V]:
        """B at one k (or pair of k), the tile's columns."""
        b, shape = self.lowering.b, self.shape
        if self.panel is None:
            self.lowering.memo = {}
            value = self.operation.operands[1]
            places = [self._position(k, b.add(n, v * shape.lanes)) for v in range(shape.vectors)]
            for place in places:
                prefetch(self.lowering, value, place, len(self.batch), b.add(k, AHEAD))
            return [convert(b, self.lowering.evaluate(value, place), shape.compute) for place in places]
        element = "i32" if shape.pair == 2 else shape.compute
        places = [b.add(b.times(k, shape.width), v * shape.lanes) for v in range(shape.vectors)]
        addresses = [b.offset(self.panel, place, element) for place in places]
        return [b.load(llvm_type(element, shape.lanes), address, BYTES[element]) for address in addresses]

    def _step(self, address: V, k, n, slots, rows: int) -> None:
        """One k (or pair of k): a row of B against a column of A."""
        b, shape = self.lowering.b, self.shape
        element = "i32" if shape.pair == 2 else shape.compute
        vectors = self._row_of_b(k, n)
        stride = self.a.strides[1] * shape.pair
        for row in range(rows):
            place = b.add(b.times(k, stride), row * self.a.strides[0])
            scalar = b.load(llvm_type(element), b.offset(address, place, shape.compute), BYTES[element])
            spread = b.splat(scalar, shape.lanes)
            for v in range(shape.vectors):
                slot = slots[row, v]
                b.write(slot, fuse(b, shape, spread, vectors[v], b.read(slot, self.kind)))
