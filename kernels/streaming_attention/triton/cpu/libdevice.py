"""libdevice's functions by their CUDA names: an instruction or two, a polynomial, or the C library's function."""

from __future__ import annotations

from streaming_attention.triton.cpu import mathematics
from streaming_attention.triton.cpu.builder import BITS, V, constant, llvm_type, mangle
from streaming_attention.triton.cpu.ir import Operation
from streaming_attention.triton.cpu.lanes import Position
from streaming_attention.triton.cpu.pointwise import rule, together, wrap

FROM_C = {*mathematics.C_LIBRARY.values(), "fmod", "hypot", "lgamma", "tgamma", "exp10", "remainder", "fdim",
          "nextafter", "logb", "j0", "j1", "y0", "y1"}  # fmt: skip
"""Functions of floats that the C library has under the same name."""

INTRINSICS = {
    name: name for name in ("sqrt", "fabs", "floor", "ceil", "trunc", "round", "rint", "nearbyint", "copysign")
}
INTRINSICS |= {
    "fma": "fma",
    "fma_rn": "fma",
    "fsqrt_rn": "sqrt",
    "dsqrt_rn": "sqrt",
    "popc": "ctpop",
    "brev": "bitreverse",
}

OPERATORS = {f"{kind}{name}_rn": f"f{name}" for name in ("add", "sub", "mul", "div") for kind in "fd"}
OPERATORS["fast_fdivide"] = "fdiv"


@rule("tt.extern_elementwise")
def external(lowering, operation: Operation, position: Position):
    values, same = together(lowering, operation, position)
    source, element = operation.operands[0].type.element, operation.result.type.element
    symbol, count = operation.attributes["symbol"].strip('"'), 1 if same else position.count
    value = _call(lowering, _plain(symbol, source), values, source, count)
    if value is None or not symbol.startswith("__nv_"):
        raise operation.unsupported(f"{symbol} of {source}")
    kind = llvm_type(element, count)
    if value.type != kind:
        value = lowering.b.cast("trunc" if BITS[element] < _width(value) else "zext", value, kind)
    return wrap(element, value, same, position.count)


def _plain(symbol: str, element: str) -> str:
    """A function's name without what says its type: ``__nv_isnand, __nv_fast_expf, __nv_popcll``."""
    name = symbol.removeprefix("__nv_")
    if element == "i64":
        return name.removesuffix("ll")
    if element == "f64":
        return name.removesuffix("d") if name.startswith(("is", "signbit")) else name
    return name.removesuffix("f") if element == "f32" and name != "erf" else name


def _width(value: V) -> int:
    return int(value.type.strip("<>").rpartition("i")[2])


def _call(lowering, name: str, values: list[V], element: str, count: int) -> V | None:
    """A function of lanes; None where there is none of that name and type."""
    b = lowering.b
    if name in OPERATORS:
        return b.binary(OPERATORS[name], *values)
    if name in INTRINSICS:
        return b.intrinsic(INTRINSICS[name], *values)
    if name in SHORT:
        return SHORT[name](b, values[0], element, count)
    if element not in ("f32", "f64"):
        return None
    name = name.removeprefix("fast_")
    if element == "f32" and f"math.{name}" in mathematics.VECTOR:
        return mathematics.VECTOR[f"math.{name}"](lowering, values[0], count)
    return mathematics.each(b, name, values, element, count) if name in FROM_C else None


def _reciprocal_root(b, x: V, element: str, count: int) -> V:
    return _reciprocal(b, b.intrinsic("sqrt", x), element, count)


def _reciprocal(b, x: V, element: str, count: int) -> V:
    return b.binary("fdiv", b.splat(constant(element, 1.0), count), x)


def _is_nan(b, x: V, element: str, count: int) -> V:
    return b.compare("fcmp uno", x, x)


def _is_infinite(b, x: V, element: str, count: int) -> V:
    return b.compare("fcmp oeq", b.intrinsic("fabs", x), b.splat(constant(element, float("inf")), count))


def _is_finite(b, x: V, element: str, count: int) -> V:
    return b.compare("fcmp olt", b.intrinsic("fabs", x), b.splat(constant(element, float("inf")), count))


def _sign(b, x: V, element: str, count: int) -> V:
    kind = f"i{BITS[element]}"
    bits = b.cast("bitcast", x, llvm_type(kind, count))
    return b.compare("icmp slt", bits, b.splat(V(kind, "0"), count))


def _saturate(b, x: V, element: str, count: int) -> V:
    """Into [0, 1]; NaN becomes 0."""
    zero, one = (b.splat(constant(element, value), count) for value in (0.0, 1.0))
    return b.intrinsic("minnum", b.intrinsic("maxnum", x, zero), one)


def _leading_zeros(b, x: V, element: str, count: int) -> V:
    return b.call(x.type, f"llvm.ctlz.{mangle(x.type)}", x, V("i1", "false"))


def _first_bit(b, x: V, element: str, count: int) -> V:
    """Place of the lowest bit that is set, counted from 1; 0 where none is."""
    zero, one = (b.splat(V(element, text), count) for text in "01")
    place = b.binary("add", b.call(x.type, f"llvm.cttz.{mangle(x.type)}", x, V("i1", "false")), one)
    return b.select(b.compare("icmp eq", x, zero), zero, place)


def _bits(b, x: V, element: str, count: int) -> V:
    other = {"f32": "i32", "f64": "i64", "i32": "f32", "i64": "f64"}[element]
    return b.cast("bitcast", x, llvm_type(other, count))


def _magnitude(b, x: V, element: str, count: int) -> V:
    return b.call(x.type, f"llvm.abs.{mangle(x.type)}", x, V("i1", "false"))


SHORT = {
    "rsqrt": _reciprocal_root, "frsqrt_rn": _reciprocal_root, "frcp_rn": _reciprocal, "drcp_rn": _reciprocal,
    "isnan": _is_nan, "isinf": _is_infinite, "finite": _is_finite, "isfinite": _is_finite, "signbit": _sign,
    "saturate": _saturate, "clz": _leading_zeros, "ffs": _first_bit, "abs": _magnitude, "llabs": _magnitude,
    "float_as_int": _bits, "float_as_uint": _bits, "int_as_float": _bits, "uint_as_float": _bits,
    "double_as_longlong": _bits, "longlong_as_double": _bits,
}  # fmt: skip
"""Functions of one operand that are an instruction or two."""
