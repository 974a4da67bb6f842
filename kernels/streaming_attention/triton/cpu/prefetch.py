"""Asking for memory before it is needed: what an expression loads some rows further on."""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import V
from streaming_attention.triton.cpu.ir import Operation, Value
from streaming_attention.triton.cpu.lanes import Position

AHEAD = 16
"""Rows between what is read and what is asked for."""

_SAME_PLACE = ("arith.", "math.", "tt.fp_to_fp", "tt.bitcast")


def prefetch(lowering, value: Value, position: Position, axis: int, index) -> None:
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
        prefetch(lowering, operation.operands[0], Position(tuple(moved), lanes, position.count), order[axis], index)
    elif operation.name == "tt.load":
        index = (*position.index[:axis], index, *position.index[axis + 1 :])
        _ask(lowering, operation, Position(index, position.axis, position.count))
    elif operation.name.startswith(_SAME_PLACE):
        for operand in operation.operands:
            prefetch(lowering, operand, position, axis, index)


def _ask(lowering, load: Operation, position: Position) -> None:
    pointer = lowering.evaluate(load.operands[0], position)
    if pointer.offset is not None and pointer.offset.vector is None and pointer.scalar is not None:
        b = lowering.b
        address = b.offset(pointer.scalar, pointer.offset.scalar, pointer.pointee)
        b.call("void", "llvm.prefetch.p0", address, V("i32", "0"), V("i32", "3"), V("i32", "1"))
