"""``tt.dot``: a matrix product as a register tile of fused multiply-adds.

``D[M, N] = A[M, K] B[K, N] + C``. B is packed into panels ``[N / width][K][width]`` so that the inner loop reads it in
order; A is read element by element and broadcast, so any strides of it will do. A tile of ``rows`` x ``vectors``
accumulators starts as C, evaluated right there (``acc * alpha[:, None]`` costs no pass of its own), runs over all of K
in registers and is stored once.

Operands of bf16 use the bf16 dot of AVX-512 where the CPU has it: pairs of neighbouring k in 32 bits, f32 sums. All
other half precisions are widened while packing, so that products and sums are f32.
"""

from __future__ import annotations

from dataclasses import dataclass

from streaming_attention.triton.cpu.builder import BYTES, V, i64, llvm_type
from streaming_attention.triton.cpu.ir import Operation, Type, Value
from streaming_attention.triton.cpu.lanes import Lanes, Position, as_vector, vector
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.transpose import transpose

UNROLL = 4
FEW_ROWS = 16
"""Up to here a product is bound by reading B, and asks for what comes next."""

AHEAD = 16
"""Rows of B between what is read and what is asked for."""


@dataclass(frozen=True)
class Shape:
    """A product's sizes and how it is tiled.

    Parameters
    ----------
    m, n, k : int
    compute : str
        Element of the packed operands: ``f32, f64, i32``, or ``bf16`` for pairs.
    lanes, vectors : int
        Width of a panel of B is ``lanes * vectors``.
    rows : int
        Most rows of a tile.
    form : str
        ``panels``: B is packed. With so few rows that packing would not pay: ``direct``, B is evaluated inside the
        tile, or ``inner``, vectors along k, where B's memory runs that way.
    """

    m: int
    n: int
    k: int
    compute: str
    lanes: int
    vectors: int
    rows: int
    form: str = "panels"

    @property
    def width(self) -> int:
        return self.lanes * self.vectors

    @property
    def sums(self) -> str:
        """Element of the accumulators."""
        return "f32" if self.compute == "bf16" else self.compute

    @property
    def pair(self) -> int:
        """Neighbouring k that lie together in a 32-bit element."""
        return 2 if self.compute == "bf16" else 1


def plan_product(lowering, operation: Operation) -> Shape:
    """Sizes, element type and tile of a product.

    Raises
    ------
    UnsupportedOperation
        Element types that have no product here.
    """
    left, right = (operand.type for operand in operation.operands[:2])
    m, k, n = *left.shape[-2:], right.shape[-1]
    form = _form(lowering, operation, m, k, n)
    compute = _compute(lowering, operation, k, n, form)
    lanes = min(n, lowering.target.lanes // (2 if compute == "f64" else 1))
    rows, vectors = lowering.target.tile
    vectors = n // lanes if form == "direct" else min(vectors, n // lanes)
    return Shape(m, n, k, compute, lanes, vectors, rows, form)


def _form(lowering, operation: Operation, m: int, k: int, n: int) -> str:
    """Packing pays unless a tile meets all of B once: then rows of B come straight from where they are."""
    along_k = _runs_along_k(lowering, operation.operands[1])
    if along_k:
        lanes = lowering.target.lanes // (2 if operation.operands[1].type.element == "f64" else 1)
        return "inner" if m <= min(FEW_ROWS, lanes) and k >= 2 * lanes and m * n >= lanes else "panels"
    vectors = -(-n // lowering.target.lanes)
    return "direct" if (m + 1) * vectors < lowering.target.registers else "panels"


def _runs_along_k(lowering, value: Value) -> bool:
    return lowering.axis_of(value) == len(value.type.shape) - 2


def _compute(lowering, operation: Operation, k: int, n: int, form: str) -> str:
    elements = {operand.type.element for operand in operation.operands[:2]}
    a_along_k = not _runs_along_k(lowering, operation.operands[0])
    pairs = lowering.target.has_bf16_dot and k % 2 == 0 and n >= 16 and form != "direct"
    if elements == {"bf16"} and pairs and a_along_k:
        return "bf16"
    if elements <= {"f16", "bf16", "f32"}:
        return "f32"
    if elements == {"f64"}:
        return "f64"
    if elements <= {"i8", "i16", "i32"}:
        return "i32"
    raise operation.unsupported(f"operands of {' and '.join(sorted(elements))}")


# packing ------------------------------------------------------------------------------------------------------------


def convert(b, lanes: Lanes, element: str) -> V:
    """Lanes as a vector of another element type."""
    value = as_vector(b, lanes)
    if lanes.element == element:
        return value
    kind = llvm_type(element, lanes.count)
    if element in ("i32",):
        return b.cast("sext", value, kind)
    return b.cast("fpext" if BYTES[element] > BYTES[lanes.element] else "fptrunc", value, kind)


def pack_invariant(lowering, loop: Operation) -> None:
    """Pack before a loop what its products read and it doesn't change."""
    for operation in loop.walk():
        if operation.name == "tt.dot" and len(operation.result.type.shape) == 2:
            shape = plan_product(lowering, operation)
            sides = ((0, read_a), (1, pack_b)) if shape.form == "panels" else ((0, read_a),)
            for side, pack in sides:
                operand = operation.operands[side]
                key = (operand, side, shape.compute, shape.width, shape.form)
                if key not in lowering.packed and _is_outside(lowering, operand, loop):
                    lowering.packed[key] = pack(lowering, operand, shape, ())


def _is_outside(lowering, value: Value, loop: Operation) -> bool:
    """Whether a value can be evaluated before a loop."""
    if value in lowering.buffers or value in lowering.scalars:
        return True
    operation = value.operation
    if operation is None or operation in set(loop.walk()):
        return False
    return value not in lowering.plan.kept and all(
        _is_outside(lowering, operand, loop) for operand in operation.operands
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
        lanes = lowering.evaluate(value, _in_batch(position, batch))
        converted = convert(lowering.b, lanes, shape.compute)
        target.write(lowering.b, position, vector(shape.compute, converted, position.count))
    return target


def _in_batch(position: Position, batch: tuple) -> Position:
    axis = None if position.axis is None else position.axis + len(batch)
    return Position((*batch, *position.index), axis, position.count)


def pack_b(lowering, value: Value, shape: Shape, batch: tuple) -> V:
    """B in panels; where its memory runs along k, in-register transposes turn it."""
    base = lowering.reserve(shape.k * shape.n * BYTES[shape.compute])
    along_k = _runs_along_k(lowering, value)
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
            rows.append(convert(b, lowering.evaluate(value, _in_batch(where, batch)), shape.compute))
            if shape.m <= FEW_ROWS:
                prefetch(lowering, value, _in_batch(where, batch), len(batch), b.add(where.index[0], AHEAD))
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
            where = _in_batch(Position((k, b.add(n, column)), 0, depth), batch)
            rows.append(b.cast("bitcast", convert(b, lowering.evaluate(value, where), shape.compute), whole))
        for place, row in enumerate(transpose(b, rows)):
            b.store(row, _panel(b, shape, base, b.add(k, place * shape.pair), n), BYTES[shape.compute])
    lowering.memo = {}


def prefetch(lowering, value: Value, position: Position, axis: int, index) -> None:
    """Ask for the memory that a value loads at another index along one axis; nothing where it isn't a plain load."""
    operation = value.operation
    if value in lowering.buffers or operation is None:
        return
    if operation.name == "tt.trans":
        order = operation.integers("order")
        moved: list = [0] * len(order)
        for place, source in enumerate(order):
            moved[source] = position.index[place]
        lanes = None if position.axis is None else order[position.axis]
        inner = Position(tuple(moved), lanes, position.count)
        prefetch(lowering, operation.operands[0], inner, order[axis], index)
    elif operation.name == "tt.load":
        index = (*position.index[:axis], index, *position.index[axis + 1 :])
        pointer = lowering.evaluate(operation.operands[0], Position(index, position.axis, position.count))
        if pointer.offset is not None and pointer.offset.vector is None and pointer.scalar is not None:
            b = lowering.b
            address = b.offset(pointer.scalar, pointer.offset.scalar, pointer.pointee)
            b.call("void", "llvm.prefetch.p0", address, V("i32", "0"), V("i32", "3"), V("i32", "1"))


# the product --------------------------------------------------------------------------------------------------------


def lower_dot(lowering, operation: Operation) -> None:
    """``tt.dot``, a matrix at a time where it has a batch."""
    kind = operation.result.type
    target = lowering.in_place.get(operation.result) or lowering.allocate(kind)
    shape = plan_product(lowering, operation)
    mark = lowering.used
    for outer in lowering.nest(kind.shape[:-2], None):
        batch = outer.index
        a = _operand(lowering, operation, 0, shape, batch, read_a)
        if shape.form == "inner":
            inner_products(lowering, operation, shape, batch, a, target)
        else:
            panels = None if shape.form == "direct" else _operand(lowering, operation, 1, shape, batch, pack_b)
            _multiply(lowering, operation, shape, batch, a, panels, target)
        lowering.used = mark
    lowering.buffers[operation.result] = target


def _operand(lowering, operation: Operation, side: int, shape: Shape, batch: tuple, pack):
    packed = lowering.packed.get((operation.operands[side], side, shape.compute, shape.width, shape.form))
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


def fuse(b, shape: Shape, left: V, right: V, total: V) -> V:
    """``total + left * right``, summing pairs where the operands are bf16."""
    if shape.compute == "i32":
        return b.binary("add", total, b.binary("mul", left, right))
    if shape.pair == 2:
        pairs = "<32 x bfloat>"
        left, right = b.cast("bitcast", left, pairs), b.cast("bitcast", right, pairs)
        return b.call(total.type, "llvm.x86.avx512bf16.dpbf16ps.512", total, left, right)
    return b.intrinsic("fma", left, right, total)


def inner_products(lowering, operation: Operation, shape: Shape, batch: tuple, a: Buffer, target: Buffer) -> None:
    """A few rows of A against rows of memory: vectors along k, no packing, one horizontal sum for all at the end."""
    b = lowering.b
    lanes = lowering.target.lanes // (2 if shape.compute == "f64" else 1)
    columns = min(shape.n, lanes // shape.m)
    depth = lanes * shape.pair
    kind = llvm_type(shape.sums, lanes)
    with b.loop(shape.n, columns) as n:
        slots = [[b.slot(kind) for _ in range(columns)] for _ in range(shape.m)]
        for slot in sum(slots, []):
            b.write(slot, V(kind, "zeroinitializer"))
        with b.loop(shape.k, depth) as k:
            lowering.memo = {}
            along = [_in_batch(Position((k, b.add(n, column)), 0, depth), batch) for column in range(columns)]
            right = [convert(b, lowering.evaluate(operation.operands[1], place), shape.compute) for place in along]
            for place in along:
                prefetch(lowering, operation.operands[1], place, len(batch) + 1, b.add(place.index[-1], AHEAD))
            for row in range(shape.m):
                left = b.load(llvm_type(shape.compute, depth), a.address(b, (row, k)), BYTES[shape.compute])
                for slot, part in zip(slots[row], right, strict=True):
                    b.write(slot, fuse(b, shape, left, part, b.read(slot, kind)))
        lowering.memo = {}
        sums = sum_lanes(b, [b.read(slot, kind) for slot in sum(slots, [])])
        for row in range(shape.m):
            place = _in_batch(Position((row, n), 1 if columns > 1 else None, columns), batch)
            part = sums if shape.m == 1 else _columns(b, sums, row * columns, columns)
            start = convert(b, lowering.evaluate(operation.operands[2], place), shape.sums)
            total = b.binary("add" if shape.compute == "i32" else "fadd", part, start)
            element = target.element
            done = convert(b, vector(shape.sums, total, columns), element)
            target.write(b, place, vector(element, done, columns))
    lowering.memo = {}


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
