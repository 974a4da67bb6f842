"""What a running kernel tells: ``tl.device_print`` and ``tl.device_assert``.

A line is printed by the C library, one call a line, so that lines of several threads don't mix. An assertion that
fails leaves its number in a variable of the module and ends its program; the launch raises it when all have ended.
"""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import BITS, FLOATS, V
from streaming_attention.triton.cpu.ir import POINTER, Operation, Value
from streaming_attention.triton.cpu.lanes import Lanes, Position, as_scalar, as_vector

FAILED = "failed_assertion"


def lower_print(lowering, operation: Operation) -> None:
    """``tt.print``: a line for every element of every operand, as Triton prints on GPUs."""
    prefix = operation.attributes["message"].replace("%", "%%")
    signs = operation.integers("isSigned") if operation.operands else []
    for value, signed in zip(operation.operands, signs, strict=True):
        for position in lowering.nest(value.type.shape, None):
            _print_element(lowering, operation, prefix, value, bool(signed), position)
    if not operation.operands:
        _printf(lowering, f"pid (%d, %d, %d) idx (){prefix}\n", lowering.program_ids)
    lowering.b.call("i32", "fflush", V("ptr", "null"))


def _print_element(lowering, operation: Operation, prefix: str, value: Value, signed: bool, position: Position) -> None:
    hexadecimal = operation.attributes["hex"] == "true"
    scalar = as_scalar(lowering.b, lowering.evaluate(value, position))
    if not (value.type.element.startswith("i") or value.type.element in (*FLOATS, POINTER)):
        raise operation.unsupported(value.type.element)
    form, shown = _argument(lowering.b, value.type.element, signed, hexadecimal, scalar)
    index = [place if isinstance(place, V) else V("i64", str(place)) for place in position.index]
    places = ", ".join(["%lld"] * len(index))
    text = f"pid (%d, %d, %d) idx ({places}){prefix}{form}\n"
    _printf(lowering, text, [*lowering.program_ids, *index, shown])


def _argument(b, element: str, signed: bool, hexadecimal: bool, scalar: V) -> tuple[str, V]:
    """How C's ``printf`` shows a scalar, and the scalar as it takes it."""
    if element == POINTER:
        return "%p", scalar
    if hexadecimal and element in FLOATS:
        scalar, element = b.cast("bitcast", scalar, f"i{BITS[element]}"), f"i{BITS[element]}"
    if element in FLOATS:
        return "%f", scalar if element == "f64" else b.cast("fpext", scalar, "double")
    extend = "sext" if signed and element != "i1" and not hexadecimal else "zext"
    wide = scalar if element == "i64" else b.cast(extend, scalar, "i64")
    return (f"0x%0{BITS[element] // 4}llx" if hexadecimal else "%lld" if signed else "%llu"), wide


def _printf(lowering, text: str, arguments: list[V]) -> None:
    b = lowering.b
    data = text.encode() + b"\0"
    name = f"@text.{len(b.declarations)}"
    spelled = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:02X}" for byte in data)
    b.declarations.add(f'{name} = private constant [{len(data)} x i8] c"{spelled}"')
    b.declarations.add("declare i32 @printf(ptr, ...)")
    b.make("i32", f"call i32 (ptr, ...) @printf({', '.join(map(str, [V('ptr', name), *arguments]))})")


def lower_assert(lowering, operation: Operation) -> None:
    """``tt.assert`` of all elements of a tensor, or of a scalar."""
    value = operation.operands[0]
    for position in lowering.nest(value.type.shape, lowering.axis_of(value)):
        check(lowering, operation, lowering.evaluate(value, position))


def check(lowering, operation: Operation, lanes: Lanes) -> None:
    """End the program where a lane doesn't hold."""
    b = lowering.b
    holds = as_scalar(b, lanes) if lanes.is_uniform else _all(b, as_vector(b, lanes), lanes.count)
    lowering.assertions.append(f"assertion failed: {operation.attributes['message']} (at {operation.line})")
    b.declarations.add(f"@{FAILED} = global i32 0")
    failed, after = b.label("failed"), b.label("after")
    b.branch(holds, after, failed)
    b.start(failed)
    b.emit(f"store atomic i32 {len(lowering.assertions)}, ptr @{FAILED} monotonic, align 4")
    b.emit("ret void")
    b.start(after)


def _all(b, vector: V, count: int) -> V:
    return vector if count == 1 else b.call("i1", f"llvm.vector.reduce.and.v{count}i1", vector)
