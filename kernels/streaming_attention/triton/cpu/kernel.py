"""A compiled kernel that can be called: packs arguments into slots and hands the grid to the pool of threads.

The pool is the one that all kernels of this package share (:mod:`streaming_attention.streaming.pool`); a program of the
grid is a task of it. Which thread runs a program never changes what it computes.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from streaming_attention.parallel import most_threads
from streaming_attention.simd.isa import select_isa
from streaming_attention.streaming.pool import launch
from streaming_attention.triton.cpu.builder import BITS, BYTES
from streaming_attention.triton.cpu.engine import Loaded, compile_object
from streaming_attention.triton.cpu.lower import lower, mangled
from streaming_attention.triton.cpu.parser import parse
from streaming_attention.triton.cpu.report import FAILED
from streaming_attention.triton.cpu.target import Target, make_target

CODES = {
    "ptr": "Q",
    "i1": "?7x",
    "i8": "b7x",
    "i16": "h6x",
    "i32": "i4x",
    "i64": "q",
    "f16": "e6x",
    "f32": "f4x",
    "f64": "d",
}
"""How ``struct`` fills an argument's 8-byte slot."""

MOST_PROGRAMS = 2**31 - 1
MOST_FRAMES = 50_000


class LaunchError(ValueError):
    """A launch that can't be: the message names the kernel, the argument and what is allowed."""


class DeviceAssertionError(AssertionError):
    """A ``tl.device_assert`` that failed in some program of a launch; the message names it and its source line."""


@dataclass(frozen=True)
class Compiled:
    """A kernel as machine code, ready to be stored.

    Parameters
    ----------
    name : str
    arguments : tuple of (str, str or None)
        Element and pointee of each.
    scratch : int
        Bytes that one program needs.
    code : bytes
        An object file.
    target : str
        Name of the :class:`Target` it was compiled for.
    assertions : tuple of str
        What each of its assertions says when it fails.
    """

    name: str
    arguments: tuple
    scratch: int
    code: bytes
    target: str
    assertions: tuple = ()

    def to_bytes(self) -> bytes:
        """One file: a line of JSON, then the object file."""
        head = {key: value for key, value in vars(self).items() if key != "code"}
        return json.dumps(head).encode() + b"\n" + self.code

    @staticmethod
    def from_bytes(data: bytes) -> Compiled:
        head, _, code = data.partition(b"\n")
        fields = json.loads(head)
        fields["arguments"] = tuple(tuple(argument) for argument in fields["arguments"])
        fields["assertions"] = tuple(fields["assertions"])
        return Compiled(code=code, **fields)


def lower_ttir(text: str, target: Target) -> tuple[str, dict]:
    """LLVM IR of a module of TTIR, and the fields of its :class:`Compiled` but the code.

    Raises
    ------
    UnsupportedOperation
        Naming the operation and its line in the kernel's source.
    MemoryError
        The tensors of one program need more scratch than is sane.
    """
    function = parse(text)
    with _deep_recursion():
        ir, scratch, assertions = lower(function, target)
    arguments = tuple((argument.type.element, argument.type.pointee) for argument in function.arguments)
    head = {"name": function.name, "arguments": arguments, "scratch": scratch, "target": target.name}
    return ir, head | {"assertions": assertions}


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Room for expressions as long as unrolled loops make them."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, MOST_FRAMES))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def compile_ttir(text: str, target: Target | None = None) -> Compiled:
    """Compile a module of TTIR; raises as :func:`lower_ttir`."""
    target = target or make_target()
    ir, head = lower_ttir(text, target)
    return Compiled(code=compile_object(ir, target), **head)


class Kernel:
    """Compiled code, loaded.

    Parameters
    ----------
    compiled : Compiled

    Examples
    --------
    >>> kernel = Kernel(compile_ttir(text))            # doctest: +SKIP
    >>> kernel((blocks,), x, y, out, x.size)           # doctest: +SKIP
    """

    def __init__(self, compiled: Compiled):
        self.compiled = compiled
        self.loaded = Loaded(compiled.code, make_target(compiled.target))
        self.function = self.loaded.address(mangled(compiled.name))
        self.slots = struct.Struct("=" + "".join(_code(element) for element, _ in compiled.arguments) + "iii")
        self.pointers = tuple(element == "ptr" for element, _ in compiled.arguments)
        self.failed = self._flag() if compiled.assertions else None

    def _flag(self) -> ctypes.c_int32:
        """Where a program leaves the number of an assertion that failed, counted from 1."""
        return ctypes.c_int32.from_address(self.loaded.variable(FAILED))

    def __call__(self, grid: Sequence[int], *arguments, threads: int | None = None) -> None:
        """Run the kernel for every program of a grid of one to three axes.

        Parameters
        ----------
        grid : sequence of int
        *arguments : array, tensor or scalar
        threads : int, optional
            As many as :func:`set_threads` said unless given.

        Raises
        ------
        LaunchError
            Empty, negative or too large grid; wrong number or kind of arguments.
        DeviceAssertionError
            An assertion of the kernel's failed; what the programs wrote before stays written.
        """
        if len(arguments) != len(self.pointers):
            raise LaunchError(f"{self.compiled.name}: {len(arguments)} arguments given, {len(self.pointers)} needed")
        pairs = zip(self.pointers, arguments, strict=True)
        self.launch(grid, [address_of(value) if pointer else value for pointer, value in pairs], threads)

    def launch(self, grid: Sequence[int], values: list, threads: int | None = None) -> None:
        """The same with pointers as integers."""
        x, y, z = (*grid, 1, 1)[:3]
        programs = x * y * z
        if not 0 < programs <= MOST_PROGRAMS or min(x, y, z) < 0:
            raise LaunchError(f"{self.compiled.name}: grid {tuple(grid)} has no programs or more than {MOST_PROGRAMS}")
        try:
            job = self.slots.pack(*values, x, y, z)
        except struct.error as error:
            job = self._pack_unsigned(values, (x, y, z), error)
        launch(_isa(), self.function, job, programs, threads or get_threads(), self.compiled.scratch)
        if self.failed is not None and self.failed.value:
            message = self.compiled.assertions[self.failed.value - 1]
            self.failed.value = 0
            raise DeviceAssertionError(f"{self.compiled.name}: {message}")

    def _pack_unsigned(self, values: list, grid: tuple, error: Exception) -> bytes:
        """The same with integers that only fit their slot without a sign: TTIR doesn't tell uint64 from int64."""
        values = [_signed(value, element) for value, (element, _) in zip(values, self.compiled.arguments, strict=True)]
        try:
            return self.slots.pack(*values, *grid)
        except struct.error:
            raise LaunchError(f"{self.compiled.name}: {self._misfit(values)}") from error

    def _misfit(self, values: list) -> str:
        """Which argument doesn't fit its slot."""
        for place, ((element, _), value) in enumerate(zip(self.compiled.arguments, values, strict=True)):
            try:
                struct.pack("=" + _code(element), value)
            except struct.error:
                return f"argument {place}: {value!r} is not a {element}"
        return "arguments don't fit"


def _code(element: str) -> str:
    if element not in CODES:
        raise LaunchError(f"arguments of type {element} can't be passed by value; {BYTES.get(element)} bytes")
    return CODES[element]


def _signed(value, element: str):
    """An unsigned integer of an element's width as the signed one of the same bits; all else as it is."""
    bits = BITS.get(element, 0)
    fits = isinstance(value, int) and element.startswith("i") and 2 ** (bits - 1) <= value < 2**bits
    return value - 2**bits if fits and bits > 1 else value


def address_of(value) -> int:
    """Address of an array's first element: NumPy's, torch's, anything with ``data_ptr()``; None is a null pointer."""
    if hasattr(value, "__array_interface__"):
        return value.__array_interface__["data"][0]
    if value is None:
        return 0
    if hasattr(value, "data_ptr"):
        return value.data_ptr()
    if isinstance(value, int):
        return value
    raise LaunchError(f"{type(value).__name__} is neither an array nor a tensor")


_threads: int | None = None


def get_threads() -> int:
    """How many threads a launch uses where it isn't told."""
    return _threads or most_threads()


def set_threads(threads: int) -> None:
    """How many threads later launches use, the caller among them; all that the process has until this is called.

    Raises
    ------
    ValueError
        Less than one.
    """
    global _threads
    if threads < 1:
        raise ValueError(f"threads: {threads} is not at least 1")
    _threads = threads


@cache
def _isa():
    """Which compiled copy of the pool's loops runs; the kernel itself knows nothing of it."""
    return select_isa(None)
