"""Operations that act on each element alone: rules from operation to lanes.

A rule is ``rule(lowering, operation, position) -> Lanes``. It asks ``lowering.evaluate(operand, position)`` for its
operands where it needs them, which is what fuses a chain of operations into one loop.
"""

from __future__ import annotations

from streaming_attention.triton.cpu import mathematics
from streaming_attention.triton.cpu.builder import BITS, V, llvm_type, mangle
from streaming_attention.triton.cpu.floats import FORMATS, absolute_fp8, change, narrow
from streaming_attention.triton.cpu.ir import POINTER, Operation
from streaming_attention.triton.cpu.lanes import (
    Lanes,
    Position,
    as_scalar,
    as_vector,
    plus,
    product,
    uniform,
    vector,
    widen,
)

RULES: dict = {}
"""Operation's name -> rule."""


def rule(*names: str):
    """Register a function as the rule of these operations."""

    def register(function):
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def together(lowering, operation: Operation, position: Position) -> tuple[list[V], bool]:
    """The operands as scalars where all are uniform, else as vectors; and whether they are uniform."""
    small = FORMATS.keys() & {operand.type.element for operand in operation.operands}
    if small and operation.name not in OF_SMALL_FLOATS:
        raise operation.unsupported(f"of {', '.join(small)}; convert to a wider float first")
    parts = [lowering.evaluate(operand, position) for operand in operation.operands]
    if all(part.is_uniform for part in parts):
        return [as_scalar(lowering.b, part) for part in parts], True
    return [as_vector(lowering.b, part) for part in parts], False


def wrap(element: str, value: V, is_uniform: bool, count: int) -> Lanes:
    return uniform(element, count, value) if is_uniform else vector(element, value, count)


# arithmetic ---------------------------------------------------------------------------------------------------------

BINARY = {
    "arith.addf": "fadd contract", "arith.subf": "fsub contract", "arith.mulf": "fmul contract",
    "arith.divf": "fdiv", "tt.precise_divf": "fdiv", "arith.remf": "frem",
    "arith.divsi": "sdiv", "arith.divui": "udiv", "arith.remsi": "srem", "arith.remui": "urem",
    "arith.andi": "and", "arith.ori": "or", "arith.xori": "xor",
    "arith.shli": "shl", "arith.shrsi": "ashr", "arith.shrui": "lshr",
}  # fmt: skip
INTEGER_DIVISIONS = {"arith.divsi", "arith.divui", "arith.remsi", "arith.remui"}
INTRINSIC = {
    "arith.maxnumf": "maxnum", "arith.minnumf": "minnum", "arith.maximumf": "maximum", "arith.minimumf": "minimum",
    "arith.maxsi": "smax", "arith.minsi": "smin", "arith.maxui": "umax", "arith.minui": "umin",
    "math.absf": "fabs", "math.floor": "floor", "math.ceil": "ceil", "math.trunc": "trunc", "math.round": "round",
    "math.roundeven": "roundeven", "math.sqrt": "sqrt", "tt.precise_sqrt": "sqrt", "math.fma": "fma",
    "math.copysign": "copysign",
}  # fmt: skip
CASTS = {
    "arith.extf": "fpext", "arith.truncf": "fptrunc", "arith.sitofp": "sitofp", "arith.uitofp": "uitofp",
    "arith.fptosi": "fptosi", "arith.fptoui": "fptoui", "arith.bitcast": "bitcast",
    "tt.int_to_ptr": "inttoptr", "tt.ptr_to_int": "ptrtoint",
}  # fmt: skip
OF_SMALL_FLOATS = {"tt.fp_to_fp", "arith.bitcast", "math.absf"}
"""What can be done to 8-bit floats; everything else wants them converted."""

INTEGER_CASTS = {"arith.extsi": "sext", "arith.extui": "zext", "arith.trunci": "trunc", "arith.index_cast": "sext"}


@rule(*BINARY)
def binary(lowering, operation, position):
    (left, right), same = together(lowering, operation, position)
    element = operation.result.type.element
    if operation.name in INTEGER_DIVISIONS and right.name.startswith("%"):
        right = divisor(lowering.b, left, right, element, 1 if same else position.count, operation.name)
    return wrap(element, lowering.b.binary(BINARY[operation.name], left, right), same, position.count)


def divisor(b, left: V, right: V, element: str, count: int, name: str) -> V:
    """A divisor that can't trap: 1 for 0, whose quotient may be anything, and for the -1 that overflows."""
    ones = b.splat(V(element, "1"), count)
    bad = b.compare("icmp eq", right, b.splat(V(element, "0"), count))
    if name.endswith("si"):
        least = b.compare("icmp eq", left, b.splat(V(element, str(-(2 ** (BITS[element] - 1)))), count))
        minus = b.compare("icmp eq", right, b.splat(V(element, "-1"), count))
        bad = b.binary("or", bad, b.binary("and", least, minus))
    return b.select(bad, ones, right)


@rule(*INTRINSIC)
def intrinsic(lowering, operation, position):
    values, same = together(lowering, operation, position)
    element = operation.result.type.element
    if element in FORMATS:
        value = absolute_fp8(lowering.b, values[0], element, 1 if same else position.count)
    else:
        value = lowering.b.intrinsic(INTRINSIC[operation.name], *values)
    return wrap(element, value, same, position.count)


@rule(*CASTS)
def cast(lowering, operation, position):
    (value,), same = together(lowering, operation, position)
    element = operation.result.type.element
    count = 1 if same else position.count
    if operation.name == "arith.truncf":
        narrowed = narrow(lowering.b, value, operation.operands[0].type.element, element, count)
        return wrap(element, narrowed, same, position.count)
    value = lowering.b.cast(CASTS[operation.name], value, llvm_type(element, count))
    result = wrap(element, value, same, position.count)
    return as_pointer(result, operation.result.type.pointee) if element == POINTER else result


@rule("tt.bitcast")
def bitcast(lowering, operation, position):
    part = lowering.evaluate(operation.operands[0], position)
    kind = operation.result.type
    if kind.element == POINTER:
        address = Lanes(POINTER, part.count, vector=as_vector(lowering.b, part)) if not part.is_uniform else None
        address = address or uniform(POINTER, part.count, as_scalar(lowering.b, part))
        return as_pointer(address, kind.pointee)
    lanes = 1 if part.is_uniform else position.count
    value = as_scalar(lowering.b, part) if part.is_uniform else as_vector(lowering.b, part)
    return wrap(
        kind.element, lowering.b.cast("bitcast", value, llvm_type(kind.element, lanes)), part.is_uniform, position.count
    )


def as_pointer(lanes: Lanes, pointee: str) -> Lanes:
    """Addresses as pointers that can be moved."""
    return Lanes(POINTER, lanes.count, lanes.scalar, vector=lanes.vector, pointee=pointee)


@rule(*INTEGER_CASTS)
def integer_cast(lowering, operation, position):
    part = lowering.evaluate(operation.operands[0], position)
    element, name = operation.result.type.element, INTEGER_CASTS[operation.name]
    if BITS[element] == BITS[part.element]:
        return part
    if name == "sext" and BITS[element] < BITS[part.element]:
        name = "trunc"
    return widen(lowering.b, part, element, name)


@rule("arith.addi", "arith.subi")
def add_integers(lowering, operation, position):
    left, right = (lowering.evaluate(operand, position) for operand in operation.operands)
    return plus(lowering.b, left, right, "add" if operation.name == "arith.addi" else "sub")


@rule("arith.muli")
def multiply_integers(lowering, operation, position):
    left, right = (lowering.evaluate(operand, position) for operand in operation.operands)
    return product(lowering.b, left, right)


@rule("arith.negf")
def negate(lowering, operation, position):
    (value,), same = together(lowering, operation, position)
    return wrap(operation.result.type.element, lowering.b.make(value.type, f"fneg {value}"), same, position.count)


@rule("math.absi")
def absolute(lowering, operation, position):
    (value,), same = together(lowering, operation, position)
    result = lowering.b.call(value.type, f"llvm.abs.{mangle(value.type)}", value, V("i1", "false"))
    return wrap(operation.result.type.element, result, same, position.count)


@rule("arith.cmpi", "arith.cmpf")
def compare(lowering, operation, position):
    (left, right), same = together(lowering, operation, position)
    kind = "icmp" if operation.name == "arith.cmpi" else "fcmp"
    predicate = {"true": "true", "false": "false"}.get(operation.words[0], operation.words[0])
    return wrap("i1", lowering.b.compare(f"{kind} {predicate}", left, right), same, position.count)


@rule("arith.select")
def select(lowering, operation, position):
    condition, yes, no = (lowering.evaluate(operand, position) for operand in operation.operands)
    element = operation.result.type.element
    same = yes.is_uniform and no.is_uniform and condition.is_uniform
    choose = as_scalar if same else as_vector
    test = as_scalar(lowering.b, condition) if condition.is_uniform else as_vector(lowering.b, condition)
    value = lowering.b.select(test, choose(lowering.b, yes), choose(lowering.b, no))
    result = wrap(element, value, same, position.count)
    return as_pointer(result, operation.result.type.pointee) if element == POINTER else result


@rule("tt.clampf")
def clamp(lowering, operation, position):
    (value, low, high), same = together(lowering, operation, position)
    keeps_nan = operation.attributes.get("propagateNan", "none") != "none" or "all" in operation.words
    names = ("maximum", "minimum") if keeps_nan else ("maxnum", "minnum")
    value = lowering.b.intrinsic(names[1], lowering.b.intrinsic(names[0], value, low), high)
    return wrap(operation.result.type.element, value, same, position.count)


@rule("tt.mulhiui", "arith.mului_extended", "arith.mulsi_extended")
def multiply_high(lowering, operation, position, index=None):
    (left, right), same = together(lowering, operation, position)
    element, b = operation.result.type.element, lowering.b
    extend = "sext" if "mulsi" in operation.name else "zext"
    count = 1 if same else position.count
    wide = llvm_type("i64", count).replace("i64", f"i{2 * BITS[element]}")
    full = b.binary("mul", b.cast(extend, left, wide), b.cast(extend, right, wide))
    if index == 0:
        return wrap(element, b.cast("trunc", full, left.type), same, position.count)
    shift = (
        V(wide, str(BITS[element])) if count == 1 else b.splat(V(f"i{2 * BITS[element]}", str(BITS[element])), count)
    )
    return wrap(element, b.cast("trunc", b.binary("lshr", full, shift), left.type), same, position.count)


@rule("tt.fp_to_fp")
def float_to_float(lowering, operation, position):
    (value,), same = together(lowering, operation, position)
    source, element = operation.operands[0].type.element, operation.result.type.element
    toward_zero = "rtz" in operation.words
    if toward_zero and element in FORMATS:
        raise operation.unsupported(f"rounding toward zero to {element}")
    value = change(lowering.b, value, source, element, 1 if same else position.count, toward_zero)
    return wrap(element, value, same, position.count)


@rule(*mathematics.FUNCTIONS)
def elementary(lowering, operation, position):
    values, same = together(lowering, operation, position)
    element, count = operation.result.type.element, 1 if same else position.count
    value = mathematics.emit(lowering, operation, values, element, count)
    return wrap(element, value, same, position.count)
