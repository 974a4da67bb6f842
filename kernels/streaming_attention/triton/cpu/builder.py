"""LLVM IR as text, one instruction a call.

Loop counters and accumulators are stack slots, which LLVM turns into registers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

LLVM_TYPES = {
    "f16": "half", "bf16": "bfloat", "f32": "float", "f64": "double", "ptr": "ptr",
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64",
    "f8E5M2": "i8", "f8E4M3FN": "i8", "f8E4M3FNUZ": "i8", "f8E5M2FNUZ": "i8",
}  # fmt: skip
BYTES = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f16": 2, "bf16": 2, "f32": 4, "f64": 8, "ptr": 8}
BYTES |= dict.fromkeys(("f8E5M2", "f8E4M3FN", "f8E4M3FNUZ", "f8E5M2FNUZ"), 1)
BITS = {name: 8 * size for name, size in BYTES.items()} | {"i1": 1}
FLOATS = ("f16", "bf16", "f32", "f64")


class V(NamedTuple):
    """An LLVM value: its type and its name or literal."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}"


def llvm_type(element: str, lanes: int = 1) -> str:
    """The LLVM type of ``lanes`` elements; a scalar for one."""
    return LLVM_TYPES[element] if lanes == 1 else f"<{lanes} x {LLVM_TYPES[element]}>"


def float_literal(value: float, element: str) -> str:
    """LLVM's exact spelling of a float constant."""
    if element == "bf16":
        return f"0xR{struct.unpack('<I', struct.pack('<f', value))[0] >> 16:04X}"
    if element == "f16":
        return f"0xH{struct.unpack('<H', struct.pack('<e', value))[0]:04X}"
    if element == "f32":
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def constant(element: str, value: float | int) -> V:
    """A scalar constant."""
    text = float_literal(value, element) if element in FLOATS else str(int(value))
    return V(llvm_type(element), text)


def i64(value: int) -> V:
    return V("i64", str(value))


class Builder:
    """Text of one LLVM function.

    Parameters
    ----------
    header : str
        ``define ... {`` without its brace.
    """

    def __init__(self, header: str):
        self.header = header
        self.slots: list[str] = []
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self._count = 0
        self.terminated = False

    def text(self) -> str:
        """The function, its stack slots in the entry block."""
        body = "\n".join(["entry:", *self.slots, "  br label %start", "start:", *self.lines])
        return f"{self.header} {{\n{body}\n}}\n"

    def fresh(self, stem: str = "v") -> str:
        self._count += 1
        return f"%{stem}{self._count}"

    # instructions ---------------------------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        self.lines.append("  " + line)

    def make(self, kind: str, text: str) -> V:
        """A value of LLVM type ``kind`` from an instruction."""
        name = self.fresh()
        self.emit(f"{name} = {text}")
        return V(kind, name)

    def binary(self, name: str, left: V, right: V) -> V:
        return self.make(left.type, f"{name} {left.type} {left.name}, {right.name}")

    def cast(self, name: str, value: V, kind: str) -> V:
        return value if kind == value.type and name == "bitcast" else self.make(kind, f"{name} {value} to {kind}")

    def compare(self, name: str, left: V, right: V) -> V:
        """``name`` is ``icmp slt`` or ``fcmp olt`` and the like."""
        kind = "i1" if not left.type.startswith("<") else f"<{left.type[1:].split(' x ')[0]} x i1>"
        return self.make(kind, f"{name} {left.type} {left.name}, {right.name}")

    def select(self, condition: V, yes: V, no: V) -> V:
        return self.make(yes.type, f"select {condition}, {yes}, {no}")

    def call(self, kind: str, name: str, *arguments: V) -> V | None:
        """Call a function by its mangled name, declaring it."""
        self.declarations.add(f"declare {kind} @{name}({', '.join(argument.type for argument in arguments)})")
        text = f"call {kind} @{name}({', '.join(map(str, arguments))})"
        if kind != "void":
            return self.make(kind, text)
        self.emit(text)
        return None

    def intrinsic(self, name: str, *arguments: V) -> V:
        """``llvm.name.<type of the first argument>``, which is also the result's type."""
        return self.call(arguments[0].type, f"llvm.{name}.{mangle(arguments[0].type)}", *arguments)

    def load(self, kind: str, address: V, align: int) -> V:
        return self.make(kind, f"load {kind}, {address}, align {align}")

    def store(self, value: V, address: V, align: int) -> None:
        self.emit(f"store {value}, {address}, align {align}")

    def offset(self, base: V, index: V | int, element: str = "i8") -> V:
        """Address of element ``index`` beyond ``base``."""
        if isinstance(index, int):
            if index == 0:
                return base
            index = i64(index)
        kind = LLVM_TYPES[element] if element != "i1" else "i8"
        return self.make("ptr", f"getelementptr {kind}, {base}, {index}")

    def splat(self, scalar: V, lanes: int) -> V:
        if lanes == 1:
            return scalar
        kind = f"<{lanes} x {scalar.type}>"
        if not scalar.name.startswith("%"):
            return V(kind, f"splat ({scalar})")
        first = self.make(kind, f"insertelement {kind} poison, {scalar}, i64 0")
        return self.make(kind, f"shufflevector {first}, {kind} poison, <{lanes} x i32> zeroinitializer")

    def shuffle(self, left: V, right: V | None, order: list[int]) -> V:
        scalar = left.type[1:-1].split(" x ")[1]
        other = right or V(left.type, "poison")
        picks = ", ".join(f"i32 {index}" for index in order)
        return self.make(f"<{len(order)} x {scalar}>", f"shufflevector {left}, {other}, <{len(order)} x i32> <{picks}>")

    def extract(self, vector: V, lane: int) -> V:
        scalar = vector.type[1:-1].split(" x ")[1]
        return self.make(scalar, f"extractelement {vector}, i64 {lane}")

    def insert(self, vector: V, scalar: V, lane: int) -> V:
        return self.make(vector.type, f"insertelement {vector}, {scalar}, i64 {lane}")

    # integers that may be known while compiling -----------------------------------------------------------------

    def add(self, left: V | int, right: V | int) -> V | int:
        if isinstance(left, int) and isinstance(right, int):
            return left + right
        if left == 0 or right == 0:
            return right if left == 0 else left
        return self.binary("add", as_i64(left), as_i64(right))

    def times(self, left: V | int, right: V | int) -> V | int:
        if isinstance(left, int) and isinstance(right, int):
            return left * right
        if left == 0 or right == 0:
            return 0
        if left == 1 or right == 1:
            return right if left == 1 else left
        return self.binary("mul", as_i64(left), as_i64(right))

    # slots, blocks, loops ---------------------------------------------------------------------------------------

    def slot(self, kind: str) -> V:
        name = self.fresh("slot")
        self.slots.append(f"  {name} = alloca {kind}")
        return V("ptr", name)

    def read(self, slot: V, kind: str) -> V:
        return self.make(kind, f"load {kind}, {slot}")

    def write(self, slot: V, value: V) -> None:
        self.emit(f"store {value}, {slot}")

    def label(self, stem: str = "block") -> str:
        return self.fresh(stem)[1:]

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")

    def jump(self, label: str) -> None:
        self.emit(f"br label %{label}")

    def branch(self, condition: V, yes: str, no: str) -> None:
        self.emit(f"br {condition}, label %{yes}, label %{no}")

    @contextmanager
    def loop(self, stop: int, step: int = 1) -> Iterator[V | int]:
        """``for index in range(0, stop, step)``; the index is an int where one turn is all there is."""
        if stop <= step:
            yield 0
            return
        with self.while_loop(i64(0), i64(stop), i64(step)) as index:
            yield index

    @contextmanager
    def while_loop(self, start: V, stop: V, step: V, signed: bool = True) -> Iterator[V]:
        """A counted loop over run-time bounds of any integer type."""
        slot = self.slot(start.type)
        head, body, after = self.label("head"), self.label("body"), self.label("after")
        self.write(slot, start)
        self.jump(head)
        self.start(head)
        index = self.read(slot, start.type)
        self.branch(self.compare("icmp slt" if signed else "icmp ult", index, stop), body, after)
        self.start(body)
        yield index
        self.write(slot, self.binary("add nsw" if signed else "add", index, step))
        self.jump(head)
        self.start(after)

    @contextmanager
    def when(self, condition: V) -> Iterator[None]:
        """Instructions that run only where the condition holds."""
        yes, after = self.label("then"), self.label("after")
        self.branch(condition, yes, after)
        self.start(yes)
        yield
        self.jump(after)
        self.start(after)


def as_i64(value: V | int) -> V:
    return i64(value) if isinstance(value, int) else value


def mangle(kind: str) -> str:
    """How LLVM spells a type inside an intrinsic's name."""
    scalar = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64", "ptr": "p0"}
    if kind.startswith("<"):
        lanes, element = kind[1:-1].split(" x ")
        return f"v{lanes}{scalar.get(element, element)}"
    return scalar.get(kind, kind)
