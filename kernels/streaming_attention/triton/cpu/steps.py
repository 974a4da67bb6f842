"""How index and pointer tensors grow: along their axes, from lane to lane, and from turn to turn of a loop."""

from __future__ import annotations

from streaming_attention.triton.cpu.expressions import parts_of
from streaming_attention.triton.cpu.ir import ALWAYS_KEPT, POINTER, Block, Operation, Value


def drifts_of(loop: Operation) -> dict[Value, list[Value]]:
    """Arguments of a loop that a turn moves by a uniform amount: ``argument + splat(scalar)``, once or more often."""
    block = loop.regions[0][0]
    found = {}
    for argument, yielded in zip(block.arguments[1:], block.terminator.operands, strict=True):
        if argument.type.is_tensor and argument.type.element in (POINTER, "i32", "i64"):
            amounts = _amounts(argument, yielded, block)
            if amounts is not None:
                found[argument] = amounts
    return found


def _amounts(argument: Value, value: Value, block: Block) -> list[Value] | None:
    amounts = []
    while value is not argument:
        operation = value.operation
        if operation is None or operation.name not in ("tt.addptr", "arith.addi"):
            return None
        value, amount = operation.operands
        if operation.name == "arith.addi" and is_uniform(value):
            value, amount = amount, value
        if not is_uniform(amount):
            return None
        amounts.append(amount)
    return amounts


def is_uniform(value: Value) -> bool:
    """Whether all elements of a tensor are the same scalar."""
    return all(
        _is_one_scalar(part) or (part.operation is not None and _is_pointwise(part.operation))
        for part in parts_of(value, _is_one_scalar)
    )


def _is_one_scalar(value: Value) -> bool:
    operation = value.operation
    return not value.type.is_tensor if operation is None else operation.name in ("arith.constant", "tt.splat")


def _is_pointwise(operation: Operation) -> bool:
    return operation.name.startswith("arith.") or operation.name in ("tt.expand_dims", "tt.broadcast")


def unit_axis(value: Value, kept=frozenset()) -> int | None:
    """The axis along which a tensor's loads (or, for pointers, its elements) lie side by side in memory.

    Found by following steps of one: ``make_range`` has step one along its axis, a product with a scalar that isn't
    known to be one loses it.
    """
    steps = _Steps().of(value)
    if value.type.element == POINTER:
        return next((axis for axis, step in enumerate(steps) if step == 1 and value.type.shape[axis] > 1), None)
    return next((axis for axis in _loads_with_axes(value, kept, set()) if axis is not None), None)


def _loads_with_axes(value: Value, kept, seen: set[Value]):
    """Unit axes of the loads inside an expression, in the axes of the expression; what has a buffer is no load."""
    operation = value.operation
    if value in seen or (seen and value in kept):
        return
    seen.add(value)
    if operation is None or not value.type.is_tensor or operation.name in ALWAYS_KEPT:
        return
    if operation.name == "tt.load":
        yield unit_axis(operation.operands[0])
        return
    if operation.name == "tt.trans":
        order = operation.integers("order")
        for axis in _loads_with_axes(operation.operands[0], kept, seen):
            yield None if axis is None else order.index(axis)
        return
    if operation.name.startswith(("arith.", "math.", "tt.fp_to_fp", "tt.bitcast")):
        for operand in operation.operands:
            yield from _loads_with_axes(operand, kept, seen)


class _Steps:
    """How an integer or pointer tensor grows along each axis: an int, or None where not known."""

    def __init__(self):
        self.known: dict[Value, tuple] = {}

    def of(self, value: Value) -> tuple:
        if value not in self.known:
            self.known[value] = self._of(value)
        return self.known[value]

    def _of(self, value: Value) -> tuple:
        operation, rank = value.operation, len(value.type.shape)
        rule = None if operation is None else getattr(self, operation.name.partition(".")[2], None)
        if rule is not None and value.type.is_tensor:
            return rule(operation)
        if operation is None and value.type.is_tensor and isinstance(value.owner, Block):
            loop = value.owner.parent
            if loop is not None and loop.name == "scf.for" and value.index > 0:
                return self.of(loop.operands[value.index + 2]) if value in drifts_of(loop) else (None,) * rank
        return (0,) * rank if is_uniform(value) else (None,) * rank

    def make_range(self, operation: Operation) -> tuple:
        return (1,)

    def splat(self, operation: Operation) -> tuple:
        return (0,) * len(operation.result.type.shape)

    constant = splat

    def expand_dims(self, operation: Operation) -> tuple:
        steps, axis = self.of(operation.operands[0]), operation.integer("axis")
        return (*steps[:axis], 0, *steps[axis:])

    def broadcast(self, operation: Operation) -> tuple:
        source = operation.operands[0]
        return tuple(
            0 if extent == 1 else step for step, extent in zip(self.of(source), source.type.shape, strict=True)
        )

    def trans(self, operation: Operation) -> tuple:
        steps = self.of(operation.operands[0])
        return tuple(steps[axis] for axis in operation.integers("order"))

    def addptr(self, operation: Operation) -> tuple:
        left, right = map(self.of, operation.operands)
        return tuple(None if None in pair else sum(pair) for pair in zip(left, right, strict=True))

    addi = addptr

    def subi(self, operation: Operation) -> tuple:
        left, right = map(self.of, operation.operands)
        return tuple(None if None in (a, b) else a - b for a, b in zip(left, right, strict=True))

    def extsi(self, operation: Operation) -> tuple:
        return self.of(operation.operands[0])

    bitcast = extsi

    def remsi(self, operation: Operation) -> tuple:
        """Index modulo a size, as kernels wrap rows: taken for its index, which only chooses a loop's order."""
        return self.of(operation.operands[0])

    def muli(self, operation: Operation) -> tuple:
        left, right = operation.operands
        steps, factor = self.of(left), _constant(right)
        if factor is None:
            factor = _constant(left)
            steps = (
                self.of(right)
                if factor is not None
                else tuple(0 if (a, b) == (0, 0) else None for a, b in zip(steps, self.of(right), strict=True))
            )
        return steps if factor is None else tuple(None if step is None else step * factor for step in steps)


def _constant(value: Value) -> int | None:
    """The integer that a (uniform) value is known to be."""
    operation = value.operation
    while operation is not None and operation.name in ("tt.splat", "tt.broadcast", "tt.expand_dims"):
        operation = operation.operands[0].operation
    if operation is None or operation.name != "arith.constant":
        return None
    text = operation.attributes["value"].removeprefix("dense<").removesuffix(">")
    return int(text) if text.lstrip("-").isdigit() else None
