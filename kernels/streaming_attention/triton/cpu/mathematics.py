"""Elementary functions.

``exp2, exp, log, log2`` of f32 (and of f16, bf16 through f32) are polynomials over vectors, within 2 ulp; ``rsqrt`` is
a division by a square root, correctly rounded twice; the others call the C library's function for each element, within
1 ulp of glibc's. f64 always takes the C library.
"""

from __future__ import annotations

from streaming_attention.triton.cpu.builder import V, constant, llvm_type, mangle
from streaming_attention.triton.cpu.ir import Operation

EXP2 = (1.0, 0.6931469775988574, 0.24022242085173168, 0.055507337436909276, 0.009671512648914752, 0.0013264727065385347)
"""Minimax polynomial of 2**x on |x| <= 1/2 with EXP2[0] = 1; its own error is 0.8 ulp of f32."""

LOG = (-0.5, 0.33333331174, -0.24999993993, 0.2000071476, -0.16668057665, 0.14249322787, -0.12420140846, 0.11676998740,
       -0.11514610310, 0.07037683629)  # fmt: skip
"""log(1+x) = x + x**2 * (LOG[0] + LOG[1] x + ...), on sqrt(1/2) - 1 <= x <= sqrt(2) - 1 (as in Cephes' logf)."""

C_LIBRARY = {"math.sin": "sin", "math.cos": "cos", "math.tan": "tan", "math.tanh": "tanh", "math.erf": "erf",
             "math.erfc": "erfc", "math.asin": "asin", "math.acos": "acos", "math.atan": "atan", "math.sinh": "sinh",
             "math.cosh": "cosh", "math.asinh": "asinh", "math.acosh": "acosh", "math.atanh": "atanh",
             "math.log1p": "log1p", "math.expm1": "expm1", "math.log10": "log10", "math.cbrt": "cbrt",
             "math.atan2": "atan2", "math.powf": "pow", "math.exp": "exp", "math.exp2": "exp2", "math.log": "log",
             "math.log2": "log2"}  # fmt: skip
FUNCTIONS = (*C_LIBRARY, "math.rsqrt")


def emit(lowering, operation: Operation, values: list[V], element: str, count: int) -> V:
    """The function of ``operation`` over ``count`` lanes of ``element``."""
    b = lowering.b
    if element in ("f16", "bf16"):
        kind = llvm_type("f32", count)
        wide = emit(lowering, operation, [b.cast("fpext", value, kind) for value in values], "f32", count)
        return b.cast("fptrunc", wide, llvm_type(element, count))
    if operation.name == "math.rsqrt":
        one = b.splat(constant(element, 1.0), count)
        return b.binary("fdiv", one, b.intrinsic("sqrt", values[0]))
    if element == "f32" and operation.name in VECTOR:
        return VECTOR[operation.name](lowering, values[0], count)
    return each(b, C_LIBRARY[operation.name], values, element, count)


def each(b, name: str, values: list[V], element: str, count: int) -> V:
    """The C library's function, a lane at a time."""
    name, kind = name + ("f" if element == "f32" else ""), llvm_type(element)
    if count == 1:
        return b.call(kind, name, *values)
    result = V(llvm_type(element, count), "poison")
    for lane in range(count):
        result = b.insert(result, b.call(kind, name, *(b.extract(value, lane) for value in values)), lane)
    return result


def exp2(lowering, x: V, count: int) -> V:
    """2**x: the nearest integer goes into the exponent, a polynomial takes the rest."""
    b = lowering.b
    x = _clamp(b, x, count, -151.0, 129.0)
    whole = b.intrinsic("roundeven", x)
    power = polynomial(b, b.binary("fsub", x, whole), EXP2, count)
    return scale(lowering, power, whole, count)


def exp(lowering, x: V, count: int) -> V:
    """e**x = 2**n * e**r with r = x - n ln 2 in two steps, so that r keeps its digits."""
    b = lowering.b
    x = _clamp(b, x, count, -105.0, 90.0)
    whole = b.intrinsic("roundeven", b.binary("fmul", x, _f32(b, 1.4426950408889634, count)))
    rest = b.intrinsic("fma", whole, _f32(b, -0.693359375, count), x)
    rest = b.intrinsic("fma", whole, _f32(b, 2.12194440e-4, count), rest)
    coefficients = (1.0, 1.0, 0.5, 0.16666665459, 0.041665795894, 0.0083334519073, 0.0013981999507)
    return scale(lowering, polynomial(b, rest, coefficients, count), whole, count)


def scale(lowering, value: V, exponent: V, count: int) -> V:
    """``value * 2**exponent`` for an integral float, right into the subnormals and infinity."""
    b = lowering.b
    if lowering.target.name == "avx512" and count % 16 == 0:
        parts = [_scalef(b, *(_slice(b, side, start) for side in (value, exponent))) for start in range(0, count, 16)]
        return _concatenate(b, parts)
    kind = llvm_type("i32", count)
    number = b.make(kind, f"call {kind} @llvm.fptosi.sat.{mangle(kind)}.{mangle(value.type)}({exponent})")
    b.declarations.add(f"declare {kind} @llvm.fptosi.sat.{mangle(kind)}.{mangle(value.type)}({value.type})")
    half = b.binary("ashr", number, b.splat(V("i32", "1"), count))
    for part in (half, b.binary("sub", number, half)):
        bits = b.binary("shl", b.binary("add", part, b.splat(V("i32", "127"), count)), b.splat(V("i32", "23"), count))
        value = b.binary("fmul", value, b.cast("bitcast", bits, value.type))
    return value


def _scalef(b, value: V, exponent: V) -> V:
    """AVX-512's instruction for value * 2**exponent; LLVM IR has no name for it."""
    rest = (V("<16 x float>", "zeroinitializer"), V("i16", "-1"), V("i32", "4"))
    return b.call("<16 x float>", "llvm.x86.avx512.mask.scalef.ps.512", value, exponent, *rest)


def _slice(b, value: V, start: int) -> V:
    whole = value.type == "<16 x float>"
    return value if whole else b.shuffle(value, None, list(range(start, start + 16)))


def _concatenate(b, parts: list[V]) -> V:
    while len(parts) > 1:
        width = int(parts[0].type[1:].split(" x ")[0])
        parts = [b.shuffle(parts[i], parts[i + 1], list(range(2 * width))) for i in range(0, len(parts), 2)]
    return parts[0]


def log(lowering, x: V, count: int) -> V:
    mantissa, exponent = _mantissa(lowering.b, x, count)
    b = lowering.b
    tail = _log1p_tail(b, mantissa, count)
    tail = b.intrinsic("fma", exponent, _f32(b, -2.12194440e-4, count), tail)
    value = b.binary(
        "fadd",
        b.intrinsic("fma", exponent, _f32(b, 0.693359375, count), b.binary("fadd", mantissa, tail)),
        _f32(b, 0.0, count),
    )
    return _log_edges(b, x, value, count)


def log2(lowering, x: V, count: int) -> V:
    """log2 in two parts: the mantissa's log times log2(e), split so that the product keeps its digits, plus n."""
    mantissa, exponent = _mantissa(lowering.b, x, count)
    b = lowering.b
    tail = _log1p_tail(b, mantissa, count)
    low = _f32(b, 0.44269504088896340735992, count)  # log2(e) - 1
    value = b.binary("fmul", tail, low)
    value = b.intrinsic("fma", mantissa, low, value)
    value = b.binary("fadd", b.binary("fadd", value, tail), mantissa)
    return _log_edges(b, x, b.binary("fadd", value, exponent), count)


def _mantissa(b, x: V, count: int) -> tuple[V, V]:
    """m - 1 and n of x = m * 2**n with sqrt(1/2) <= m < sqrt(2), subnormals included."""
    ints = llvm_type("i32", count)
    small = b.compare("fcmp olt", x, _f32(b, 1.17549435e-38, count))
    x = b.select(small, b.binary("fmul", x, _f32(b, 8388608.0, count)), x)
    bits = b.cast("bitcast", x, ints)
    shifted = b.binary("sub", bits, b.splat(V("i32", str(0x3F3504F3)), count))
    power = b.binary("ashr", shifted, b.splat(V("i32", "23"), count))
    bits = b.binary("sub", bits, b.binary("shl", power, b.splat(V("i32", "23"), count)))
    exponent = b.cast("sitofp", power, x.type)
    exponent = b.select(small, b.binary("fsub", exponent, _f32(b, 23.0, count)), exponent)
    return b.binary("fsub", b.cast("bitcast", bits, x.type), _f32(b, 1.0, count)), exponent


def _log1p_tail(b, x: V, count: int) -> V:
    """log(1+x) - x."""
    square = b.binary("fmul", x, x)
    coefficients = LOG[1:]
    cubic = b.binary("fmul", b.binary("fmul", polynomial(b, x, coefficients, count), x), square)
    return b.intrinsic("fma", square, _f32(b, -0.5, count), cubic)


def _log_edges(b, x: V, value: V, count: int) -> V:
    """log(0) = -inf, log(inf) = inf, NaN below zero and for NaN."""
    infinity = _f32(b, float("inf"), count)
    value = b.select(b.compare("fcmp oeq", x, infinity), infinity, value)
    value = b.select(b.compare("fcmp oeq", x, _f32(b, 0.0, count)), _f32(b, float("-inf"), count), value)
    return b.select(
        b.compare("fcmp uge", x, _f32(b, 0.0, count)),
        b.select(b.compare("fcmp uno", x, x), x, value),
        _f32(b, float("nan"), count),
    )


def polynomial(b, x: V, coefficients, count: int) -> V:
    """Horner's rule, constant term first."""
    value = _f32(b, coefficients[-1], count)
    for coefficient in reversed(coefficients[:-1]):
        value = b.intrinsic("fma", value, x, _f32(b, coefficient, count))
    return value


def _clamp(b, x: V, count: int, low: float, high: float) -> V:
    """Into the range that an exponent can hold; NaN passes through."""
    top, bottom = _f32(b, high, count), _f32(b, low, count)
    x = b.select(b.compare("fcmp olt", top, x), top, x)
    return b.select(b.compare("fcmp ogt", bottom, x), bottom, x)


def _f32(b, value: float, count: int) -> V:
    return b.splat(constant("f32", value), count)


VECTOR = {"math.exp2": exp2, "math.exp": exp, "math.log": log, "math.log2": log2}
