"""Counted loops and what they carry.

Scalars are carried in stack slots, which LLVM turns into registers; tensors in buffers; tensors of indices or pointers
that move by a uniform amount each turn in one scalar (see ``plan.drifts``).
"""

from __future__ import annotations

from dataclasses import dataclass

from streaming_attention.triton.cpu.builder import V, llvm_type
from streaming_attention.triton.cpu.expressions import depends, reads_only, sites
from streaming_attention.triton.cpu.ir import POINTER, Operation, Value
from streaming_attention.triton.cpu.lanes import Lanes, Position, advance, as_scalar, plus, uniform
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.pack import is_outside, pack_invariant
from streaming_attention.triton.cpu.pointwise import as_pointer


class Carrier:
    """Storage of one carried value: a slot for a scalar, a buffer for a tensor."""

    def __init__(self, lowering, value: Value):
        self.lowering, self.kind = lowering, value.type
        self.buffer = lowering.allocate(value.type) if value.type.is_tensor else None
        self.slot = None if self.buffer else lowering.b.slot(llvm_type(value.type.element))

    def put(self, value: Value) -> None:
        """Evaluate a value into the storage."""
        if self.buffer is None:
            self.lowering.memo = {}
            lanes = self.lowering.evaluate(value, Position(()))
            self.lowering.b.write(self.slot, as_scalar(self.lowering.b, lanes))
        else:
            _evaluate_into(self.lowering, value, self.buffer)

    def copy(self, source: Buffer) -> None:
        """Take a tensor from a buffer of the same shape."""
        for position in self.lowering.nest(self.kind.shape, len(self.kind.shape) - 1):
            self.buffer.write(self.lowering.b, position, source.read(self.lowering.b, position))

    def show(self, value: Value) -> None:
        """Let ``value`` be what the storage holds now."""
        if self.buffer is not None:
            self.lowering.buffers[value] = self.buffer
            return
        lanes = uniform(self.kind.element, 1, self.lowering.b.read(self.slot, llvm_type(self.kind.element)))
        self.lowering.scalars[value] = as_pointer(lanes, self.kind.pointee) if self.kind.element == POINTER else lanes


def _evaluate_into(lowering, value: Value, target: Buffer) -> None:
    for position in lowering.nest(value.type.shape, lowering.axis_of(value)):
        target.write(lowering.b, position, lowering.evaluate(value, position))


def lower_for(lowering, operation: Operation) -> None:
    """``scf.for``."""
    b, block = lowering.b, operation.regions[0][0]
    mark = lowering.used
    pack_invariant(lowering, operation)
    start, stop, step = (as_scalar(b, lowering.scalars[bound]) for bound in operation.operands[:3])
    carried = _Carried(lowering, operation)
    amounts = carried.amounts_outside()
    inner = lowering.used
    with b.while_loop(start, stop, step) as index:
        counter = block.arguments[0]
        lowering.scalars[counter] = uniform(counter.type.element, 1, index)
        carried.enter()
        lowering.turns.append(_Turn(counter, step, amounts))
        lowering.block(block)
        lowering.turns.pop()
        carried.turn()
        lowering.used = inner
    lowering.memo = {}
    carried.leave()
    if not any(result.type.is_tensor for result in operation.results):
        lowering.used = mark


@dataclass(frozen=True)
class _Turn:
    """What the next turn of a loop changes: its counter, by ``step``, and drifting arguments, by slot."""

    counter: Value
    step: V
    amounts: list[tuple[V, V]]

    def go(self, lowering) -> Lanes:
        """Evaluate as in the next turn from here on; returns the counter of this one."""
        now = lowering.scalars[self.counter]
        following = lowering.b.binary("add", as_scalar(lowering.b, now), self.step)
        lowering.scalars[self.counter] = uniform(self.counter.type.element, 1, following)
        self._move(lowering, "add")
        return now

    def back(self, lowering, now: Lanes) -> None:
        lowering.scalars[self.counter] = now
        self._move(lowering, "sub")

    def _move(self, lowering, direction: str) -> None:
        lowering.memo = {}
        for slot, amount in self.amounts:
            lowering.b.write(slot, lowering.b.binary(direction, lowering.b.read(slot, "i64"), amount))


class _Carried:
    """What a ``scf.for`` carries, sorted by how."""

    def __init__(self, lowering, operation: Operation):
        self.lowering, self.operation = lowering, operation
        block = operation.regions[0][0]
        self.arguments = block.arguments[1:]
        self.yielded = block.terminator.operands
        self.inits = operation.operands[3:]
        self.drifts, self.carriers = {}, {}
        for place, argument in enumerate(self.arguments):
            if argument in lowering.plan.drifts:
                self._drift(place, argument)
            else:
                self.carriers[place] = Carrier(lowering, argument)
                self.carriers[place].put(self.inits[place])
                self._claim(place, argument)

    def _drift(self, place: int, argument: Value) -> None:
        slot = self.lowering.b.slot("i64")
        self.lowering.b.write(slot, V("i64", "0"))
        self.drifts[place] = slot
        self.lowering.drifting[argument] = (self.inits[place], slot)

    def _claim(self, place: int, argument: Value) -> None:
        """Let a product accumulate into the carried buffer, where only its accumulator reads the old value."""
        value = self.yielded[place]
        product = value.operation
        if product is None or product.name != "tt.dot" or product.block is not self.arguments[0].owner:
            return
        only_there = value.users == [product.block.terminator] and sites(argument) == {product}
        if (
            only_there
            and argument in depends(product.operands[2])
            and not any(argument in depends(side) for side in product.operands[:2])
        ):
            self.lowering.in_place[value] = self.carriers[place].buffer

    def enter(self) -> None:
        for place, carrier in self.carriers.items():
            carrier.show(self.arguments[place])

    def turn(self) -> None:
        """Move what the body yields into the storage: reads of old values come before writes of new ones."""
        lowering, b = self.lowering, self.lowering.b
        scalars, copies = [], []
        lowering.memo = {}
        for place, carrier in self.carriers.items():
            value = self.yielded[place]
            if carrier.buffer is None:
                lowering.memo = {}
                scalars.append((carrier, as_scalar(b, lowering.evaluate(value, Position(())))))
            elif value is self.arguments[place] or value in lowering.in_place:
                continue
            elif value in self.arguments or not (value in lowering.buffers or self._stays_put(place, value)):
                copies.append((place, self._aside(value)))
            elif value in lowering.buffers:
                copies.append((place, lowering.buffers[value]))
        amounts = [self._amount(place) for place in self.drifts]
        done = {place for place, _ in copies}
        for place, carrier in self.carriers.items():
            value = self.yielded[place]
            direct = carrier.buffer is not None and place not in done
            if direct and value is not self.arguments[place] and value not in lowering.in_place:
                carrier.put(value)
        for place, source in copies:
            self.carriers[place].copy(source)
        for carrier, scalar in scalars:
            b.write(carrier.slot, scalar)
        for slot, amount in zip(self.drifts.values(), amounts, strict=True):
            b.write(slot, b.binary("add", b.read(slot, "i64"), amount))

    def _stays_put(self, place: int, value: Value) -> bool:
        """Whether a value can be written over its own old one, reading no other carried tensor."""
        return reads_only(value, self.arguments[place], self.arguments)

    def _aside(self, value: Value) -> Buffer:
        """A value in a buffer of its own, out of the way of what the turn overwrites."""
        target = self.lowering.allocate(value.type)
        _evaluate_into(self.lowering, value, target)
        return target

    def _amount(self, place: int) -> V:
        """What this turn adds to a drifting argument."""
        lowering, b, total = self.lowering, self.lowering.b, V("i64", "0")
        for value in lowering.plan.drifts[self.arguments[place]]:
            lowering.memo = {}
            lanes = lowering.evaluate(value, Position((0,) * len(value.type.shape)))
            scalar = as_scalar(b, lanes)
            total = b.binary("add", total, scalar if scalar.type == "i64" else b.cast("sext", scalar, "i64"))
        return total

    def amounts_outside(self) -> list[tuple[V, V]]:
        """Slots of drifting arguments with what every turn adds to them, where that is known before the loop."""
        found = []
        for place, slot in self.drifts.items():
            amounts = self.lowering.plan.drifts[self.arguments[place]]
            if all(is_outside(self.lowering, amount, self.operation) for amount in amounts):
                found.append((slot, self._amount(place)))
        return found

    def leave(self) -> None:
        for place, result in enumerate(self.operation.results):
            if place in self.drifts:
                self.lowering.drifting[result] = (self.inits[place], self.drifts[place])
            else:
                self.carriers[place].show(result)


def evaluate_drifting(lowering, value: Value, position: Position) -> Lanes:
    """A drifting argument: its initial value plus the running scalar."""
    init, slot = lowering.drifting[value]
    lanes = lowering.evaluate(init, position)
    moved = lowering.b.read(slot, "i64")
    if value.type.element == POINTER:
        return advance(lowering.b, lanes, uniform("i64", position.count, moved))
    if value.type.element != "i64":
        moved = lowering.b.cast("trunc", moved, llvm_type(value.type.element))
    return plus(lowering.b, lanes, uniform(value.type.element, position.count, moved))
