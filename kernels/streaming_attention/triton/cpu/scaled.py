"""``tt.dot_scaled``: a product of small floats, blocks of which share a scale (the OCP microscaling formats).

An operand is an expression like any other: its elements become f32 and are multiplied by their block's scale where the
product packs them. Scales are powers of two (``e8m0`` in an i8) or 8-bit floats; 4-bit floats lie two in a byte, the
first in the lower half.
"""

from __future__ import annotations

from streaming_attention.triton.cpu import dot
from streaming_attention.triton.cpu.builder import V, as_i64, constant, i64, llvm_type
from streaming_attention.triton.cpu.floats import FORMATS, NAN32, change
from streaming_attention.triton.cpu.ir import Operation, Type, Value
from streaming_attention.triton.cpu.lanes import Lanes, Position, as_vector, vector
from streaming_attention.triton.cpu.pointwise import rule

FOUR_BITS = "e2m1"


def lower_dot_scaled(lowering, operation: Operation) -> None:
    """The same as ``tt.dot`` of scaled operands."""
    for name in ("lhs_k_pack", "rhs_k_pack"):
        if operation.attributes.get(name, "true").startswith("false"):
            raise operation.unsupported(f"{name} = false")
    left, right, start, *scales = operation.operands
    operands = []
    for side, value in (("lhs", left), ("rhs", right)):
        scale = [scales.pop(0)] if operation.attributes[f"{side}_scaled"] == "true" else []
        operands.append(_scaled(value, scale, side, operation))
    dot.lower_dot(lowering, Operation("tt.dot", [*operands, start], operation.results, line=operation.line))


def _scaled(value: Value, scale: list[Value], side: str, operation: Operation) -> Value:
    """An operand as a value of f32."""
    form, shape = operation.attributes[side], list(value.type.shape)
    axis = len(shape) - (1 if side == "lhs" else 2)
    shape[axis] *= 2 if form == FOUR_BITS else 1
    attributes = {"axis": f"{axis} : i32", "form": form}
    made = Operation("tt.scaled_operand", [value, *scale], [], attributes=attributes, line=operation.line)
    made.results.append(Value("", Type("f32", tuple(shape)), made))
    return made.result


@rule("tt.scaled_operand")
def scaled_operand(lowering, operation: Operation, position: Position) -> Lanes:
    b, axis, count = lowering.b, operation.integer("axis"), position.count
    source, *scales = operation.operands
    if operation.attributes["form"] != FOUR_BITS:
        lanes = lowering.evaluate(source, position)
        value = change(b, as_vector(b, lanes), lanes.element, "f32", count)
    elif position.axis == axis:
        return lowering.element_by_element(operation.result, position)
    else:
        value = _four_bits(lowering, source, position, axis)
    for scale in scales:
        value = b.binary("fmul", value, _factor(lowering, operation, scale, position, axis))
    return vector("f32", value, count)


def _four_bits(lowering, source: Value, position: Position, axis: int) -> V:
    """One of the two 4-bit floats in each lane's byte: sign, two exponent bits, one of mantissa, bias 1."""
    b, count, index = lowering.b, position.count, as_i64(position.index[axis])
    packed = lowering.evaluate(source, position.at(axis, b.binary("lshr", index, i64(1))))
    ints = llvm_type("i32", count)
    bits = b.cast("zext", as_vector(b, packed), ints)
    shift = b.binary("shl", b.binary("and", index, i64(1)), i64(2))
    bits = b.binary("lshr", bits, b.splat(b.cast("trunc", shift, "i32"), count))
    sign = b.binary("shl", b.binary("and", bits, b.splat(V("i32", "8"), count)), b.splat(V("i32", "28"), count))
    placed = b.binary("shl", b.binary("and", bits, b.splat(V("i32", "7"), count)), b.splat(V("i32", "22"), count))
    floats = llvm_type("f32", count)
    magnitude = b.binary("fmul", b.cast("bitcast", placed, floats), b.splat(constant("f32", 2.0**126), count))
    return b.cast("bitcast", b.binary("or", b.cast("bitcast", magnitude, ints), sign), floats)


def _factor(lowering, operation: Operation, scale: Value, position: Position, axis: int) -> V:
    """The scale of each lane's block; blocks run along k, the last axis of a tensor of scales."""
    b, count = lowering.b, position.count
    block = operation.result.type.shape[axis] // scale.type.shape[-1]
    index = list(position.index)
    index.append(b.binary("udiv", as_i64(index.pop(axis)), i64(block)))
    lanes = None if position.axis in (None, axis) else len(index) - 2  # along k they share a block
    part = lowering.evaluate(scale, Position(tuple(index), lanes, count))
    value = as_vector(b, part)
    if part.element in FORMATS:
        return change(b, value, part.element, "f32", count)
    bits = b.cast("zext", value, llvm_type("i32", count))
    power = b.binary("shl", bits, b.splat(V("i32", "23"), count))
    power = b.select(b.compare("icmp eq", bits, b.splat(V("i32", "0"), count)), _i32(b, 0x00400000, count), power)
    power = b.select(b.compare("icmp eq", bits, b.splat(V("i32", "255"), count)), _i32(b, NAN32, count), power)
    return b.cast("bitcast", power, llvm_type("f32", count))


def _i32(b, value: int, count: int) -> V:
    return b.splat(V("i32", str(value)), count)
