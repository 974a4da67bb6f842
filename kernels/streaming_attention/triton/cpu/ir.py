"""TTIR in memory: types, values, operations, blocks. What the parser builds and everything else reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

POINTER = "ptr"

ALWAYS_KEPT = {"tt.dot", "tt.dot_scaled", "tt.reduce", "tt.scan", "tt.atomic_rmw", "tt.atomic_cas", "tt.histogram",
               "tt.gather", "tt.map_elementwise", "tt.call", "scf.for", "scf.if", "scf.while"}  # fmt: skip
"""Operations whose result is computed where they stand and kept in memory; all others are expressions."""


class UnsupportedOperation(NotImplementedError):
    """An operation of TTIR that this compiler can't lower; the message names it and its source line."""


@dataclass(frozen=True)
class Type:
    """A scalar or a tensor of static shape.

    Parameters
    ----------
    element : str
        ``i1 .. i64, f16, bf16, f32, f64`` or ``ptr``.
    shape : tuple of int
        ``()`` for a scalar.
    pointee : str, optional
        Element that a ``ptr`` points to.
    """

    element: str
    shape: tuple[int, ...] = ()
    pointee: str | None = None

    @property
    def is_tensor(self) -> bool:
        return bool(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size

    def with_element(self, element: str) -> Type:
        return Type(element, self.shape)

    def pointed(self) -> Type:
        """The type that loading through this pointer gives."""
        return Type(self.pointee, self.shape)


@dataclass(eq=False)
class Value:
    """A result of an operation or an argument of a block, with the operations that use it."""

    name: str
    type: Type
    owner: Operation | Block | None = None
    index: int = 0
    users: list[Operation] = field(default_factory=list, repr=False)

    @property
    def operation(self) -> Operation | None:
        """The operation that defines it; None for an argument of a block."""
        return self.owner if isinstance(self.owner, Operation) else None


@dataclass(eq=False)
class Operation:
    """One operation.

    Parameters
    ----------
    name : str
        With its dialect, such as ``arith.addf``.
    words : tuple of str
        Bare words after the name: a predicate, an axis, an atomic's kind.
    attributes : dict of str to str
    regions : list of list of Block
    successors : list of (str, list of Value)
        Labels and arguments of the blocks that a branch goes to.
    line : str
        Where it comes from in the user's source, ``file:line``.
    block : Block, optional
        The block that it stands in.
    result_types, entry_arguments : list
        Of the parser: what its line says of results and of its region's arguments.
    """

    name: str
    operands: list[Value]
    results: list[Value]
    words: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    regions: list[list[Block]] = field(default_factory=list)
    successors: list[tuple[str, list[Value]]] = field(default_factory=list)
    line: str = "unknown source line"
    block: Block | None = field(default=None, repr=False)
    result_types: list[Type] = field(default_factory=list)
    entry_arguments: list[Value] = field(default_factory=list)

    @property
    def result(self) -> Value:
        return self.results[0]

    def integer(self, key: str) -> int:
        """An integer attribute such as ``axis = 1 : i32``."""
        return int(self.attributes[key].split(":")[0])

    def integers(self, key: str) -> list[int]:
        """An array attribute such as ``order = array<i32: 1, 0>``."""
        inside = self.attributes[key].partition("<")[2].rpartition(">")[0]
        return [int(item) for item in inside.partition(":")[2].split(",")]

    def unsupported(self, why: str = "") -> UnsupportedOperation:
        return UnsupportedOperation(f"{self.name} is not supported on the CPU{why and ': ' + why} (at {self.line})")

    def walk(self) -> Iterator[Operation]:
        """This operation and all inside its regions."""
        yield self
        for region in self.regions:
            for block in region:
                for operation in block.operations:
                    yield from operation.walk()


@dataclass(eq=False)
class Block:
    """A straight line of operations."""

    label: str
    arguments: list[Value] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    parent: Operation | None = field(default=None, repr=False)

    @property
    def terminator(self) -> Operation:
        return self.operations[-1]


@dataclass(eq=False)
class Function:
    """A kernel: its name, its arguments and its blocks, the entry first."""

    name: str
    arguments: list[Value]
    blocks: list[Block]

    def walk(self) -> Iterator[Operation]:
        for block in self.blocks:
            for operation in block.operations:
                yield from operation.walk()
