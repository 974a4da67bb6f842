"""Constants, indices, and operations that only move indices: broadcasts, transposes, reshapes, joins and splits."""

from __future__ import annotations

import struct

from streaming_attention.triton.cpu.builder import FLOATS, V, as_i64, constant, float_literal, llvm_type
from streaming_attention.triton.cpu.floats import FORMATS, encode
from streaming_attention.triton.cpu.ir import POINTER
from streaming_attention.triton.cpu.lanes import Lanes, Position, advance, as_scalar, as_vector, iota, uniform, vector
from streaming_attention.triton.cpu.pointwise import rule


@rule("arith.constant")
def constants(lowering, operation, position):
    kind = operation.result.type
    text = operation.attributes["value"]
    if text.startswith("dense<["):
        raise operation.unsupported("a table of constants")
    return uniform(kind.element, position.count, literal(kind.element, text.removeprefix("dense<").removesuffix(">")))


def literal(element: str, text: str) -> V:
    """A constant as MLIR prints it: decimal, ``true``, or a float's bits in hexadecimal."""
    if element in FORMATS:
        bits = int(text, 16) if text.startswith("0x") else encode(element, float(text))
        return V("i8", str(bits))
    if element not in FLOATS:
        return V(llvm_type(element), {"true": "1", "false": "0"}.get(text, text))
    if text.startswith("0x"):
        bits = int(text, 16)
        formats = {"f32": ("<I", "<f"), "f64": ("<Q", "<d"), "f16": ("<H", "<e")}
        if element == "bf16":
            return V("bfloat", f"0xR{bits:04X}")
        if element == "f16":
            return V("half", f"0xH{bits:04X}")
        source, target = formats[element]
        value = struct.unpack(target, struct.pack(source, bits))[0]
        if value != value:  # a NaN keeps its payload's spelling simple
            return V(llvm_type(element), "0x7FF8000000000000")
        return V(llvm_type(element), float_literal(value, element))
    return constant(element, float(text))


@rule("ub.poison")
def poison(lowering, operation, position):
    kind = operation.result.type
    zero = V("ptr", "null") if kind.element == POINTER else literal(kind.element, "0")
    return uniform(kind.element, position.count, zero)


@rule("tt.get_program_id", "tt.get_num_programs")
def program(lowering, operation, position):
    axis = "xyz".index(operation.words[0])
    values = lowering.program_ids if operation.name == "tt.get_program_id" else lowering.program_counts
    return uniform("i32", position.count, values[axis])


@rule("tt.make_range")
def make_range(lowering, operation, position):
    index = lowering.b.add(position.index[0], operation.integer("start"))
    return iota(index, position.count, position.step(0), lowering.b)


@rule("tt.splat")
def splat(lowering, operation, position):
    part = lowering.scalars[operation.operands[0]]
    scalar = uniform(part.element, position.count, as_scalar(lowering.b, part))
    if part.element != POINTER:
        return scalar
    zero = uniform("i64", position.count, V("i64", "0"))
    return Lanes(POINTER, position.count, scalar.scalar, offset=zero, pointee=operation.result.type.pointee)


@rule("tt.addptr")
def add_pointer(lowering, operation, position):
    pointer, offset = (lowering.evaluate(operand, position) for operand in operation.operands)
    return advance(lowering.b, pointer, offset)


@rule("tt.expand_dims")
def expand_dims(lowering, operation, position):
    return lowering.evaluate(operation.operands[0], position.drop(operation.integer("axis")))


@rule("tt.broadcast")
def broadcast(lowering, operation, position):
    source = operation.operands[0]
    for axis, extent in enumerate(source.type.shape):
        if extent == 1:
            position = position.at(axis, 0)
    return lowering.evaluate(source, position)


@rule("tt.trans")
def transpose(lowering, operation, position):
    order = operation.integers("order")
    index: list = [0] * len(order)
    for axis, source in enumerate(order):
        index[source] = position.index[axis]
    lanes = None if position.axis is None else order[position.axis]
    return lowering.evaluate(operation.operands[0], Position(tuple(index), lanes, position.count))


@rule("tt.reshape")
def reshape(lowering, operation, position):
    source = operation.operands[0]
    return lowering.evaluate_moved(operation.result.type.shape, position, source)


@rule("tt.join")
def join(lowering, operation, position):
    """Two tensors side by side along a new last axis."""
    left, right = operation.operands
    last = len(operation.result.type.shape) - 1
    if position.axis == last:
        return lowering.element_by_element(operation.result, position)
    which = position.index[last]
    inner = position.drop(last)
    if isinstance(which, int):
        return lowering.evaluate(operation.operands[which], inner)
    parts = [as_vector(lowering.b, lowering.evaluate(side, inner)) for side in (left, right)]
    first = lowering.b.compare("icmp eq", as_i64(which), V("i64", "0"))
    return vector(left.type.element, lowering.b.select(first, *parts), position.count)


@rule("tt.split")
def split(lowering, operation, position, index):
    source = operation.operands[0]
    return lowering.evaluate(source, position.insert(len(position.index), index))


@rule("tt.cat")
def concatenate(lowering, operation, position):
    left, right = operation.operands
    if position.axis == 0 and position.count > left.type.shape[0]:
        return lowering.element_by_element(operation.result, position)
    b, half = lowering.b, left.type.shape[0]
    index = as_i64(position.index[0])
    first = b.compare("icmp slt", index, V("i64", str(half)))
    inside = b.select(first, index, b.binary("sub", index, V("i64", str(half))))
    moved = Position((inside, *position.index[1:]), position.axis, position.count)
    parts = [as_vector(b, lowering.evaluate(side, moved)) for side in (left, right)]
    return vector(left.type.element, b.select(first, *parts), position.count)


@rule("tt.unsplat")
def unsplat(lowering, operation, position):
    source = operation.operands[0]
    return lowering.evaluate(source, Position((0,) * len(source.type.shape), None, 1))
