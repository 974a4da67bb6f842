"""Walks over expressions, which are graphs: a value that is met a second time is not walked again, so that an
expression of n operations costs n steps and not 2^n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from streaming_attention.triton.cpu.ir import ALWAYS_KEPT, Operation, Value


def parts_of(value: Value, is_leaf: Callable[[Value], bool]) -> Iterator[Value]:
    """A value and all that it is made of, each once, not going past leaves and what no operation makes."""
    seen, waiting = {value}, [value]
    while waiting:
        part = waiting.pop()
        yield part
        if part.operation is not None and not is_leaf(part):
            new = dict.fromkeys(operand for operand in part.operation.operands if operand not in seen)
            seen.update(new)
            waiting += reversed(new)


def is_held(value: Value) -> bool:
    """Whether a value isn't evaluated where it is used: an argument, or the result of what runs where it stands."""
    return value.operation is None or value.operation.name in ALWAYS_KEPT


def depends(value: Value) -> set[Value]:
    """All values that an expression is made of."""
    return set(parts_of(value, is_held))


def sites(value: Value) -> set[Operation]:
    """Operations that end up reading a value, through expressions that are evaluated where they are used."""
    found, seen, waiting = set(), {value}, [value]
    while waiting:
        for user in waiting.pop().users:
            lazy = user.name not in ALWAYS_KEPT and user.results and user.result.type.is_tensor
            if not lazy:
                found.add(user)
            elif user.result not in seen:
                seen.add(user.result)
                waiting.append(user.result)
    return found


def reads_only(value: Value, own: Value, arguments: list[Value]) -> bool:
    """Whether an expression reads, of the tensors that a loop carries, its own alone and that element by element."""
    for part in parts_of(value, lambda part: part is own or is_held(part)):
        if part is own:
            continue
        if part.operation is None:
            allowed = part not in arguments or not part.type.is_tensor
        else:
            pointwise = part.operation.name.startswith(("arith.", "math.", "tt.load"))
            allowed = pointwise or is_held(part) or own not in depends(part)
        if not allowed:
            return False
    return True
