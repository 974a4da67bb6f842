"""Asking for memory before it is needed: what an expression loads some rows further on."""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import V
from streaming_attention.triton.cpu.expressions import is_held, parts_of
from streaming_attention.triton.cpu.ir import Operation, Value
from streaming_attention.triton.cpu.lanes import Position
from streaming_attention.triton.cpu.plan import DEAR

AHEAD = 16
"""Rows between what is read and what is asked for."""

FIRST, SECOND = 3, 2
"""LLVM's names of the caches."""

_SAME_PLACE = ("arith.", "math.", "tt.fp_to_fp", "tt.bitcast")


def prefetch(lowering, value: Value, position: Position, axis: int, index, cache: int = FIRST) -> None:
    """Ask for the memory that a value loads at another index along one axis; nothing for what has a buffer."""
    operation = value.operation
    if value in lowering.buffers or operation is None or not value.type.is_tensor:
        return
    if operation.name == "tt.trans":
        order = operation.integers("order")
        moved: list = [0] * len(order)
        for place, source in enumerate(order):
            moved[source] = position.index[place]
        lanes = None if position.axis is None else order[position.axis]
        there = Position(tuple(moved), lanes, position.count)
        prefetch(lowering, operation.operands[0], there, order[axis], index, cache)
    elif operation.name == "tt.load":
        index = (*position.index[:axis], index, *position.index[axis + 1 :])
        _ask(lowering, operation, Position(index, position.axis, position.count), cache)
    elif operation.name.startswith(_SAME_PLACE):
        for operand in operation.operands:
            prefetch(lowering, operand, position, axis, index, cache)


def prefetch_next_turn(lowering, value: Value, position: Position) -> None:
    """Ask the second cache for the memory that a value loads at the same position a turn of the loop later."""
    if lowering.turns:
        turn, memo = lowering.turns[-1], lowering.memo
        now = turn.go(lowering)
        prefetch(lowering, value, position, 0, position.index[0], SECOND)
        turn.back(lowering, now)
        lowering.memo = memo


def _ask(lowering, load: Operation, position: Position, cache: int) -> None:
    if not _is_safe(load.operands[0], lowering.plan.kept):
        return
    pointer = lowering.evaluate(load.operands[0], position)
    if pointer.offset is not None and pointer.offset.vector is None and pointer.scalar is not None:
        b = lowering.b
        address = b.offset(pointer.scalar, pointer.offset.scalar, pointer.pointee)
        b.call("void", "llvm.prefetch.p0", address, V("i32", "0"), V("i32", str(cache)), V("i32", "1"))


def _is_safe(value: Value, kept: set[Value]) -> bool:
    """Whether an address may be computed where the kernel doesn't: nothing is loaded for it, or divided."""
    is_leaf = lambda part: is_held(part) or part in kept or not part.type.is_tensor  # noqa: E731
    return not any(part.operation.name in DEAR for part in parts_of(value, is_leaf) if not is_leaf(part))
