"""From one float to another, also where LLVM has no instruction for it: 8-bit floats, rounding toward zero.

An 8-bit float of ``e`` exponent and ``m`` mantissa bits becomes an f32 by putting its bits where f32 keeps those and
multiplying by a power of two, which gets subnormals right too. The way back rounds to nearest, ties to even; what is
too large saturates, as it does on GPUs. See Micikevicius et al. 2022.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from streaming_attention.triton.cpu.builder import BITS, V, constant, llvm_type

NAN32 = 0x7FC00000
EXPONENT32 = 0x7F800000


class Format(NamedTuple):
    """An 8-bit float: mantissa bits, exponent bias, the largest finite magnitude's bits, NaN's bits."""

    mantissa: int
    bias: int
    largest: int
    nan: int

    @property
    def has_infinity(self) -> bool:
        return self.largest == 0x7B

    @property
    def has_negative_zero(self) -> bool:
        return self.nan != 0x80

    def decode(self, bits: int) -> float:
        """The value of a finite magnitude."""
        exponent, fraction = bits >> self.mantissa, bits & ((1 << self.mantissa) - 1)
        scale = 2.0 ** (max(exponent, 1) - self.bias - self.mantissa)
        return scale * (fraction + ((1 << self.mantissa) if exponent else 0))


FORMATS = {
    "f8E5M2": Format(2, 15, 0x7B, 0x7F),
    "f8E4M3FN": Format(3, 7, 0x7E, 0x7F),
    "f8E4M3FNUZ": Format(3, 8, 0x7F, 0x80),
    "f8E5M2FNUZ": Format(2, 16, 0x7F, 0x80),
}


def change(b, value: V, source: str, target: str, count: int, toward_zero: bool = False) -> V:
    """Floats as floats of another type; rounded to nearest, ties to even, unless ``toward_zero`` (not to 8 bits)."""
    if source in FORMATS:
        value, source = widen_fp8(b, value, source, count), "f32"
    if target in FORMATS:
        return narrow_fp8(b, change(b, value, source, "f32", count), target, count)
    if source == target:
        return value
    if BITS[source] == BITS[target] == 16:
        value, source = b.cast("fpext", value, llvm_type("f32", count)), "f32"
    if BITS[target] > BITS[source]:
        return b.cast("fpext", value, llvm_type(target, count))
    return (truncate if toward_zero else narrow)(b, value, source, target, count)


def narrow(b, value: V, source: str, target: str, count: int) -> V:
    """A float rounded to a shorter one. From f64 to 16 bits LLVM would call a function of compiler-rt, which a Python
    process lacks: so through an f32 rounded to odd, whose last bit remembers that something was cut off.
    """
    if source == "f64" and target in ("f16", "bf16"):
        ints = llvm_type("i64", count)
        bits = b.cast("bitcast", value, ints)
        cut = b.binary("and", bits, b.splat(V("i64", str(2**29 - 1)), count))
        some = b.compare("icmp ne", cut, b.splat(V("i64", "0"), count))
        sticky = b.binary("shl", b.cast("zext", some, ints), b.splat(V("i64", "29"), count))
        bits = b.binary("or", b.binary("xor", bits, cut), sticky)
        value = b.cast("fptrunc", b.cast("bitcast", bits, value.type), llvm_type("f32", count))
    return b.cast("fptrunc", value, llvm_type(target, count))


def widen_fp8(b, value: V, element: str, count: int) -> V:
    """8-bit floats, as i8, to f32."""
    form = FORMATS[element]
    ints, floats = llvm_type("i32", count), llvm_type("f32", count)
    bits = b.cast("zext", value, ints)
    magnitude = b.binary("and", bits, _i32(b, 0x7F, count))
    placed = b.binary("shl", magnitude, _i32(b, 23 - form.mantissa, count))
    scaled = b.binary("fmul", b.cast("bitcast", placed, floats), _f32(b, 2.0 ** (127 - form.bias), count))
    result = b.cast("bitcast", scaled, ints)
    sign = b.binary("shl", b.binary("and", bits, _i32(b, 0x80, count)), _i32(b, 24, count))
    if form.has_infinity:
        special = b.compare("icmp ugt", magnitude, _i32(b, form.largest, count))
        result = b.select(special, b.binary("or", placed, _i32(b, EXPONENT32, count)), result)
    else:
        tested = magnitude if form.has_negative_zero else bits
        special = b.compare("icmp eq", tested, _i32(b, form.nan, count))
        result = b.select(special, _i32(b, NAN32, count), result)
    return b.cast("bitcast", b.binary("or", result, sign), floats)


def narrow_fp8(b, value: V, element: str, count: int) -> V:
    """f32 to 8-bit floats, as i8."""
    form, ints = FORMATS[element], llvm_type("i32", count)
    bits = b.cast("bitcast", value, ints)
    sign = b.binary("and", b.binary("lshr", bits, _i32(b, 24, count)), _i32(b, 0x80, count))
    magnitude = b.intrinsic("minnum", b.intrinsic("fabs", value), _f32(b, form.decode(form.largest), count))
    normal = _round_normal(b, b.cast("bitcast", magnitude, ints), form, count)
    below = b.compare("fcmp olt", magnitude, _f32(b, 2.0 ** (1 - form.bias), count))
    result = b.select(below, _round_subnormal(b, magnitude, form, count), normal)
    if not form.has_negative_zero:
        sign = b.select(b.compare("icmp eq", result, _i32(b, 0, count)), _i32(b, 0, count), sign)
    result = b.binary("or", result, sign)
    result = b.select(b.compare("fcmp uno", value, value), _i32(b, form.nan, count), result)
    return b.cast("trunc", result, llvm_type("i8", count))


def absolute_fp8(b, value: V, element: str, count: int) -> V:
    """The magnitude; a NaN that is spelled as negative zero stays one."""
    cleared = b.binary("and", value, b.splat(V("i8", "127"), count))
    if FORMATS[element].has_negative_zero:
        return cleared
    is_nan = b.compare("icmp eq", value, b.splat(V("i8", "-128"), count))
    return b.select(is_nan, value, cleared)


def _round_normal(b, bits: V, form: Format, count: int) -> V:
    """Bits of a magnitude whose exponent both formats have: add half of the last place, ties to even, and cut."""
    shift = 23 - form.mantissa
    last = b.binary("and", b.binary("lshr", bits, _i32(b, shift, count)), _i32(b, 1, count))
    rounded = b.binary("add", b.binary("add", bits, last), _i32(b, (1 << (shift - 1)) - 1, count))
    cut = b.binary("lshr", rounded, _i32(b, shift, count))
    return b.binary("sub", cut, _i32(b, (127 - form.bias) << form.mantissa, count))


def _round_subnormal(b, magnitude: V, form: Format, count: int) -> V:
    """Bits of a small magnitude: added to a power of two whose last place is the smallest subnormal, f32 rounds it."""
    anchor = 2.0 ** (23 + 1 - form.bias - form.mantissa)
    total = b.binary("fadd", magnitude, _f32(b, anchor, count))
    start = struct.unpack("<I", struct.pack("<f", anchor))[0]
    return b.binary("sub", b.cast("bitcast", total, llvm_type("i32", count)), _i32(b, start, count))


def truncate(b, value: V, source: str, target: str, count: int) -> V:
    """A float cut to a shorter one: rounded to nearest, and one step back where that went away from zero."""
    if source == "f64" and BITS[target] == 16:  # LLVM would call compiler-rt's function
        value = truncate(b, value, source, "f32", count)
    near = b.cast("fptrunc", value, llvm_type(target, count))
    back = b.intrinsic("fabs", b.cast("fpext", near, value.type))
    ints = llvm_type(f"i{BITS[target]}", count)
    bits = b.cast("bitcast", near, ints)
    less = b.binary("sub", bits, b.splat(V(f"i{BITS[target]}", "1"), count))
    further = b.compare("fcmp ogt", back, b.intrinsic("fabs", value))
    return b.cast("bitcast", b.select(further, less, bits), near.type)


def encode(element: str, value: float) -> int:
    """The bits of a constant as an 8-bit float, rounded as :func:`narrow_fp8` does."""
    form = FORMATS[element]
    if value != value:
        return form.nan
    wanted = min(abs(value), form.decode(form.largest))
    bits = min(range(form.largest + 1), key=lambda place: (abs(form.decode(place) - wanted), place & 1))
    negative = struct.pack(">d", value)[0] >> 7 and (bits or form.has_negative_zero)
    return bits | (0x80 if negative else 0)


def _i32(b, value: int, count: int) -> V:
    return b.splat(V("i32", str(value)), count)


def _f32(b, value: float, count: int) -> V:
    return b.splat(constant("f32", value), count)
