"""Reductions, scans, and the few operations that visit elements one by one.

A reduction's region says how two elements combine; it is evaluated on whole vectors, so any region works, with any
number of results (``argmax`` carries two).
"""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import V, i64, llvm_type
from streaming_attention.triton.cpu.ir import Operation, Type
from streaming_attention.triton.cpu.lanes import Lanes, Position, as_scalar, as_vector, uniform, vector
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.prefetch import AHEAD, prefetch
from streaming_attention.triton.cpu.report import check

STREAMED = 4096
"""Elements from which a tensor that is loaded by its reduction comes from further away than the nearest cache."""

CHAINS = 4
"""Vectors that accumulate side by side, to hide the latency of an addition."""


def combine(lowering, operation: Operation, left: list[Lanes], right: list[Lanes], count: int) -> list[Lanes]:
    """The region of a reduction or scan applied to two sets of lanes."""
    block = operation.regions[0][0]
    return evaluate_region(lowering, block, [*left, *right], count)


def evaluate_region(lowering, block, values: list[Lanes], count: int) -> list[Lanes]:
    """A region of pointwise operations, its arguments bound to lanes; its assertions are checked."""
    position, outer = Position((), None, count), lowering.memo
    lowering.memo = {(argument, position): lanes for argument, lanes in zip(block.arguments, values, strict=True)}
    for operation in block.operations:
        if operation.name == "tt.assert":
            check(lowering, operation, lowering.evaluate(operation.operands[0], position))
    results = [lowering.evaluate(operand, position) for operand in block.terminator.operands]
    results = [vector(lanes.element, as_vector(lowering.b, lanes), count) for lanes in results]
    lowering.memo = outer
    return results


def lower_reduce(lowering, operation: Operation) -> None:
    """``tt.reduce``: lanes run along the reduced axis, or across it where another axis is contiguous in memory."""
    shape, axis = operation.operands[0].type.shape, operation.integer("axis")
    written = lowering.plan.written_by.get(operation)
    room = lowering.room(written) if written else None
    targets = [lowering.allocate(result.type) if result.type.is_tensor else None for result in operation.results]
    lanes_along = lowering.axis_of(operation.operands[0])
    if lanes_along == axis or len(shape) == 1:
        _reduce_along(lowering, operation, shape, axis, targets, room)
    else:
        _reduce_across(lowering, operation, shape, axis, lanes_along, targets, room)
    if written:
        lowering.buffers[written] = room
    for result, target in zip(operation.results, targets, strict=True):
        if target is not None:
            lowering.buffers[result] = target


def _reduce_along(lowering, operation, shape, axis, targets, room: Buffer | None) -> None:
    """Each result from vectors along the axis, folded into one lane at the end."""
    count = min(shape[axis], lowering.target.lanes)
    chains = min(CHAINS, shape[axis] // count)
    for outer in lowering.nest((*shape[:axis], *shape[axis + 1 :]), None):
        index = outer.insert(axis, 0).index
        start = [
            Position((*index[:axis], chain * count, *index[axis + 1 :]), axis if count > 1 else None, count)
            for chain in range(chains)
        ]
        lanes = _accumulate(lowering, operation, start, axis, chains * count, shape[axis], room)
        while len(lanes) > 1:
            half = len(lanes) // 2
            pairs = zip(lanes[:half], lanes[half:], strict=True)
            lanes = [combine(lowering, operation, left, right, count) for left, right in pairs]
        for result, target, value in zip(
            operation.results, targets, _fold(lowering, operation, lanes[0], count), strict=True
        ):
            if target is None:
                lowering.scalars[result] = value
            else:
                target.write(lowering.b, outer, value)


def _reduce_across(lowering, operation, shape, axis, lanes_along, targets, room: Buffer | None) -> None:
    """Some vectors of results at a time, their elements met row by row."""
    kept = (*shape[:axis], *shape[axis + 1 :])
    inner = lanes_along - (lanes_along > axis)
    count = min(kept[inner], lowering.target.lanes)
    beside = min(2 * CHAINS, kept[inner] // count)
    coarse = (*kept[:inner], kept[inner] // (count * beside), *kept[inner + 1 :])
    for block in lowering.nest(coarse, None):
        first = lowering.b.times(block.index[inner], count * beside)
        places = [
            Position(block.at(inner, lowering.b.add(first, place * count)).index, inner if count > 1 else None, count)
            for place in range(beside)
        ]
        starts = [place.insert(axis, 0) for place in places]
        sums = _accumulate(lowering, operation, starts, axis, 1, shape[axis], room)
        for place, lanes in zip(places, sums, strict=True):
            for target, value in zip(targets, lanes, strict=True):
                target.write(lowering.b, place, value)


def _read(lowering, operation, position: Position, room: Buffer | None) -> list[Lanes]:
    """What is reduced at a position; written there too where the reduction is to keep its operand.

    Memory some rows further on is asked for where a reduction of a large tensor is what reads it.
    """
    lanes = [lowering.evaluate(operand, position) for operand in operation.operands]
    if len(position.index) == 2 and position.axis == 1 and operation.operands[0].type.size >= STREAMED:
        for operand in operation.operands:
            prefetch(lowering, operand, position, 0, lowering.b.add(position.index[0], AHEAD))
    if room is not None:
        room.write(lowering.b, position, lanes[0])
    return lanes


def _accumulate(
    lowering, operation, start: list[Position], axis: int, step: int, extent: int, room: Buffer | None
) -> list[list[Lanes]]:
    """For each position, combine what lies there and ``step``, 2 ``step``, ... further along ``axis``."""
    b, count = lowering.b, start[0].count
    first = [_read(lowering, operation, place, room) for place in start]
    elements = [lanes.element for lanes in first[0]]
    first = [[vector(lanes.element, as_vector(b, lanes), count) for lanes in parts] for parts in first]
    if extent <= step:
        return first
    slots = [[b.slot(llvm_type(element, count)) for element in elements] for _ in start]

    def write(place: int, lanes: list[Lanes]) -> None:
        for slot, part in zip(slots[place], lanes, strict=True):
            b.write(slot, as_vector(b, part))

    def read(place: int) -> list[Lanes]:
        pairs = zip(elements, slots[place], strict=True)
        return [vector(element, b.read(slot, llvm_type(element, count)), count) for element, slot in pairs]

    for place, lanes in enumerate(first):
        write(place, lanes)
    with b.while_loop(i64(step), i64(extent), i64(step)) as moved:
        lowering.memo = {}
        for place, position in enumerate(start):
            index = (*position.index[:axis], b.add(moved, position.index[axis]), *position.index[axis + 1 :])
            where = Position(index, position.axis, count)
            right = _read(lowering, operation, where, room)
            write(place, combine(lowering, operation, read(place), right, count))
    lowering.memo = {}
    return [read(place) for place in range(len(start))]


def _fold(lowering, operation, lanes: list[Lanes], count: int) -> list[Lanes]:
    """Halve the vectors until one lane is left."""
    b = lowering.b
    while count > 1:
        half = count // 2
        sides = [_halves(b, part, half) for part in lanes]
        lanes = combine(lowering, operation, [low for low, _ in sides], [high for _, high in sides], half)
        count = half
    return lanes


def _halves(b, lanes: Lanes, half: int) -> tuple[Lanes, Lanes]:
    whole = as_vector(b, lanes)
    if half == 1:
        return tuple(Lanes(lanes.element, 1, b.extract(whole, lane)) for lane in (0, 1))
    low = b.shuffle(whole, None, list(range(half)))
    high = b.shuffle(whole, None, list(range(half, 2 * half)))
    return vector(lanes.element, low, half), vector(lanes.element, high, half)


def lower_scan(lowering, operation: Operation) -> None:
    """``tt.scan``: step by step along the axis, lanes across it where there is another one."""
    shape, axis = operation.operands[0].type.shape, operation.integer("axis")
    backwards = operation.attributes.get("reverse", "false").startswith("true")
    targets = [lowering.allocate(result.type) for result in operation.results]
    kept = (*shape[:axis], *shape[axis + 1 :])
    inner = max(range(len(kept)), key=lambda place: (kept[place] > 1, place)) if kept else None
    for outer in lowering.nest(kept, inner):
        _scan_line(lowering, operation, outer, axis, shape[axis], backwards, targets)
    lowering.buffers.update(zip(operation.results, targets, strict=True))


def _scan_line(lowering, operation, outer: Position, axis: int, extent: int, backwards: bool, targets) -> None:
    b, count = lowering.b, outer.count
    start = outer.insert(axis, extent - 1 if backwards else 0)
    first = [lowering.evaluate(operand, start) for operand in operation.operands]
    slots = [b.slot(llvm_type(lanes.element, count)) for lanes in first]
    for slot, lanes, target in zip(slots, first, targets, strict=True):
        b.write(slot, as_vector(b, lanes))
        target.write(b, start, vector(lanes.element, as_vector(b, lanes), count))
    elements = [lanes.element for lanes in first]
    with b.while_loop(i64(1), i64(extent), i64(1)) as turn:
        lowering.memo = {}
        where = outer.insert(axis, b.binary("sub", i64(extent - 1), turn) if backwards else turn)
        right = [lowering.evaluate(operand, where) for operand in operation.operands]
        left = [vector(e, b.read(slot, llvm_type(e, count)), count) for e, slot in zip(elements, slots, strict=True)]
        for slot, lanes, target in zip(slots, combine(lowering, operation, left, right, count), targets, strict=True):
            b.write(slot, as_vector(b, lanes))
            target.write(b, where, lanes)
    lowering.memo = {}


def lower_histogram(lowering, operation: Operation) -> None:
    """``tt.histogram``: count what lies in range, an element at a time."""
    b, kind = lowering.b, operation.result.type
    target = lowering.allocate(kind)
    bins = kind.shape[0]
    for position in lowering.nest(kind.shape, 0):
        target.write(b, position, uniform(kind.element, position.count, V(llvm_type(kind.element), "0")))
    for position in lowering.nest(operation.operands[0].type.shape, None):
        value, *mask = (as_scalar(b, lowering.evaluate(operand, position)) for operand in operation.operands)
        inside = b.compare("icmp ult", value, V(value.type, str(bins)))
        if mask:
            inside = b.binary("and", inside, mask[0])
        with b.when(inside):
            place = Position((b.cast("zext", value, "i64") if value.type != "i64" else value,))
            old = as_scalar(b, target.read(b, place))
            target.write(b, place, uniform(kind.element, 1, b.binary("add", old, V(old.type, "1"))))
    lowering.buffers[operation.result] = target


def lower_gather(lowering, operation: Operation) -> None:
    """``tt.gather``: elements of a tensor picked along an axis by another."""
    b, axis = lowering.b, operation.integer("axis")
    source, indices = operation.operands
    if source not in lowering.buffers:
        lowering.keep(source)
    target = lowering.allocate(operation.result.type)
    for position in lowering.nest(operation.result.type.shape, None):
        picked = as_scalar(b, lowering.evaluate(indices, position))
        picked = picked if picked.type == "i64" else b.cast("sext", picked, "i64")
        target.write(b, position, lowering.evaluate(source, position.at(axis, picked)))
    lowering.buffers[operation.result] = target


def lower_map_elementwise(lowering, operation: Operation) -> None:
    """``tt.map_elementwise`` of one element at a time: its region over vectors."""
    if operation.integer("pack") != 1:
        raise operation.unsupported(f"pack = {operation.integer('pack')}")
    shape = operation.result.type.shape
    targets = [lowering.allocate(Type(result.type.element, shape)) for result in operation.results]
    for position in lowering.nest(shape, lowering.axis_of(operation.operands[0])):
        values = [lowering.evaluate(operand, position) for operand in operation.operands]
        for target, lanes in zip(
            targets, evaluate_region(lowering, operation.regions[0][0], values, position.count), strict=True
        ):
            target.write(lowering.b, position, lanes)
    lowering.buffers.update(zip(operation.results, targets, strict=True))
