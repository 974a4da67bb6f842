"""What one pass over memory can do for two operations: a kept tensor written by the reduction that reads it first, and
one that takes the place of the product it is made from; and what several products pack once.

In attention the first two concern ``p = exp2(scores - m)``: it is written while its rows are summed, over the scores,
so that a block of keys costs one pass less and half the cache; the last concerns K and V that two blocks of queries
meet.
"""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import BYTES
from streaming_attention.triton.cpu.expressions import parts_of
from streaming_attention.triton.cpu.ir import ALWAYS_KEPT, Operation, Value

SURELY_PACKED = 32
"""Rows from which on every product packs its right operand, whatever the target's registers."""


def written_by_reductions(kept: set[Value], sites: dict, order: dict, writers: list[int]) -> dict[Operation, Value]:
    """Reduction -> the kept tensor that it reads, before anything else does and before memory changes.

    Parameters
    ----------
    kept : set of Value
    sites : dict of Value to set of Operation
        The operations that end up reading a value.
    order : dict of Operation to int
    writers : list of int
        Places of the operations that write memory.
    """
    found: dict[Operation, Value] = {}
    for value in kept:
        reader = _first_reader(value, sites.get(value, set()), order)
        if reader is not None and not any(order[value.operation] < place < order[reader] for place in writers):
            found[reader] = value
    return found


def _first_reader(value: Value, sites: set[Operation], order: dict[Operation, int]) -> Operation | None:
    """The reduction that is the first to read a value; None where something else is."""
    operation = value.operation
    if operation is None or operation.name in ALWAYS_KEPT or not sites:
        return None
    first = min(sites, key=order.__getitem__)
    alone = first.name == "tt.reduce" and first.operands == [value]
    return first if alone and first.block is operation.block else None


def over_products(kept: set[Value], sites: dict, order: dict) -> dict[Value, Value]:
    """Kept tensor -> the product that it is made from element by element and that nothing reads any more after that."""
    found: dict[Value, Value] = {}
    for value in kept:
        operation = value.operation
        if operation is None or operation.name in ALWAYS_KEPT:
            continue
        for product in _products(value, kept, value.type):
            last = max(order[site] for site in sites[product])
            if (
                product.operation.block is operation.block
                and last == order[operation]
                and product not in found.values()
            ):
                found[value] = product
                break
    return found


def _products(value: Value, kept: set[Value], kind) -> list[Value]:
    """Products of a tensor's shape and element size that its expression reads at its own place and nowhere else."""
    ends = lambda part: part is not value and (part in kept or not _is_pointwise(part, kind))  # noqa: E731
    return [part for part in parts_of(value, ends) if _is_product(part, kind)]


def _is_pointwise(value: Value, kind) -> bool:
    return value.type.shape == kind.shape and value.operation.name.startswith(("arith.", "math.", "tt.fp_to_fp"))


def _is_product(value: Value, kind) -> bool:
    operation, same = value.operation, value.type.shape == kind.shape
    return bool(operation) and operation.name == "tt.dot" and same and BYTES[value.type.element] == BYTES[kind.element]


def packed_together(value: Value) -> list[Operation]:
    """Products of one block that pack a value alike, as their right operand, in order; none if they are not several."""
    products = list(dict.fromkeys(user for user in value.users if user.name == "tt.dot" and user.operands[1] is value))
    if len(products) < 2 or len(products) < len(value.users):
        return []
    types = [(product.block, [operand.type for operand in product.operands]) for product in products]
    rows, *batch = products[0].operands[0].type.shape[-2::-1]
    return products if all(each == types[0] for each in types) and rows >= SURELY_PACKED and not batch else []
