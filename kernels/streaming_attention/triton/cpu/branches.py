"""Branches, ``while`` loops, and the blocks of a function with early returns."""

from __future__ import annotations

from streaming_attention.triton.cpu.control import Carrier
from streaming_attention.triton.cpu.ir import Block, Operation, Value
from streaming_attention.triton.cpu.lanes import Position, as_scalar


def lower_if(lowering, operation: Operation) -> None:
    """``scf.if``."""
    b = lowering.b
    condition = as_scalar(b, lowering.scalars[operation.operands[0]])
    carriers = [Carrier(lowering, result) for result in operation.results]
    labels = [b.label("then"), b.label("else"), b.label("after")]
    b.branch(condition, labels[0], labels[1])
    for place, label in enumerate(labels[:2]):
        b.start(label)
        if place < len(operation.regions):
            _branch_body(lowering, operation.regions[place][0], carriers)
        b.jump(labels[2])
    b.start(labels[2])
    for carrier, result in zip(carriers, operation.results, strict=True):
        carrier.show(result)


def _branch_body(lowering, block: Block, carriers: list[Carrier]) -> None:
    mark = lowering.used
    lowering.block(block)
    if block.operations and block.terminator.name == "scf.yield":
        for carrier, value in zip(carriers, block.terminator.operands, strict=True):
            carrier.put(value)
    lowering.used = mark


def lower_while(lowering, operation: Operation) -> None:
    """``scf.while``: the condition's region and the body hand values to each other through separate storage."""
    b = lowering.b
    before, body = operation.regions[0][0], operation.regions[1][0]
    incoming = [Carrier(lowering, argument) for argument in before.arguments]
    outgoing = [Carrier(lowering, argument) for argument in body.arguments]
    for carrier, value in zip(incoming, operation.operands, strict=True):
        carrier.put(value)
    head, turn, after = b.label("while"), b.label("do"), b.label("after")
    b.jump(head)
    b.start(head)
    mark = lowering.used
    _show_all(incoming, before.arguments)
    lowering.block(before)
    condition, *passed = before.terminator.operands
    for carrier, value in zip(outgoing, passed, strict=True):
        carrier.put(value)
    lowering.memo = {}
    b.branch(as_scalar(b, lowering.evaluate(condition, Position(()))), turn, after)
    b.start(turn)
    _show_all(outgoing, body.arguments)
    lowering.block(body)
    for carrier, value in zip(incoming, body.terminator.operands, strict=True):
        carrier.put(value)
    lowering.used = mark
    b.jump(head)
    b.start(after)
    _show_all(outgoing, operation.results)


def _show_all(carriers: list[Carrier], values: list[Value]) -> None:
    for carrier, value in zip(carriers, values, strict=True):
        carrier.show(value)


def declare_block_arguments(lowering, blocks: list[Block]) -> None:
    """Storage for what branches hand to a function's blocks."""
    lowering.block_carriers = {
        block.label: [Carrier(lowering, argument) for argument in block.arguments] for block in blocks[1:]
    }


def show_block_arguments(lowering, block: Block) -> None:
    """What branches handed to a block that begins here."""
    _show_all(lowering.block_carriers[block.label], block.arguments)


def lower_branch(lowering, operation: Operation) -> None:
    """``cf.br`` and ``cf.cond_br``."""
    b = lowering.b
    if operation.name == "cf.br":
        _hand_over(lowering, *operation.successors[0])
        return
    condition = as_scalar(b, lowering.scalars[operation.operands[0]])
    labels = [b.label("edge"), b.label("edge")]
    b.branch(condition, *labels)
    for label, successor in zip(labels, operation.successors, strict=True):
        b.start(label)
        _hand_over(lowering, *successor)


def _hand_over(lowering, label: str, values: list[Value]) -> None:
    for carrier, value in zip(lowering.block_carriers[label], values, strict=True):
        carrier.put(value)
    lowering.b.jump(lowering.labels[label])


def lower_call(lowering, operation: Operation) -> None:
    """``tt.call``: the blocks of the function, right here."""
    first, *rest = operation.regions[0]
    lowering.labels |= {block.label: f"mlir.{block.label}" for block in rest}
    lowering.block_carriers |= {
        block.label: [Carrier(lowering, argument) for argument in block.arguments] for block in rest
    }
    lowering.block(first)
    for block in rest:
        lowering.b.start(lowering.labels[block.label])
        show_block_arguments(lowering, block)
        lowering.block(block)
    for carrier, result in zip(lowering.block_carriers[rest[-1].label], operation.results, strict=True):
        carrier.show(result)


def lower_return(lowering, operation: Operation) -> None:
    """``tt.return`` of a kernel."""
    lowering.b.emit("ret void")


def lower_assume(lowering, operation: Operation) -> None:
    """``tl.assume``: LLVM may count on it."""
    condition = as_scalar(lowering.b, lowering.scalars[operation.operands[0]])
    lowering.b.call("void", "llvm.assume", condition)


def lower_barrier(lowering, operation: Operation) -> None:
    """``tl.debug_barrier``: a program is one thread, which waits for nobody."""


def lower_unreachable(lowering, operation: Operation) -> None:
    """``ub.unreachable``."""
    lowering.b.emit("unreachable")
