"""What a matrix product is: its sizes, the element it computes in, and which of three forms pays."""

from __future__ import annotations

from dataclasses import dataclass

from streaming_attention.triton.cpu.builder import V, llvm_type
from streaming_attention.triton.cpu.floats import FORMATS, change
from streaming_attention.triton.cpu.ir import Operation, Value
from streaming_attention.triton.cpu.lanes import Lanes, Position, as_vector

FEW_ROWS = 16
"""Up to here a product is bound by reading B, and asks for what comes next."""


@dataclass(frozen=True)
class Shape:
    """A product's sizes and how it is tiled.

    Parameters
    ----------
    m, n, k : int
    compute : str
        Element of the packed operands: ``f32, f64, i32``, or ``bf16`` for pairs.
    lanes, vectors : int
        Width of a panel of B is ``lanes * vectors``.
    rows : int
        Most rows of a tile.
    form : str
        ``panels``: B is packed. With so few rows that packing would not pay: ``direct``, B is evaluated inside the
        tile, or ``inner``, vectors along k, where B's memory runs that way.
    """

    m: int
    n: int
    k: int
    compute: str
    lanes: int
    vectors: int
    rows: int
    form: str = "panels"

    @property
    def width(self) -> int:
        return self.lanes * self.vectors

    @property
    def sums(self) -> str:
        """Element of the accumulators."""
        return "f32" if self.compute == "bf16" else self.compute

    @property
    def pair(self) -> int:
        """Neighbouring k that lie together in a 32-bit element."""
        return 2 if self.compute == "bf16" else 1


def plan_product(lowering, operation: Operation) -> Shape:
    """Sizes, element type and tile of a product.

    Raises
    ------
    UnsupportedOperation
        Element types that have no product here.
    """
    left, right = (operand.type for operand in operation.operands[:2])
    m, k, n = *left.shape[-2:], right.shape[-1]
    form = _form(lowering, operation, m, k, n)
    compute = _compute(lowering, operation, k, n, form)
    lanes = min(n, lowering.target.lanes // (2 if compute == "f64" else 1))
    rows, vectors = lowering.target.tile
    vectors = n // lanes if form == "direct" else min(vectors, n // lanes)
    return Shape(m, n, k, compute, lanes, vectors, rows, form)


def _form(lowering, operation: Operation, m: int, k: int, n: int) -> str:
    """Packing pays unless a tile meets all of B once: then rows of B come straight from where they are."""
    along_k = runs_along_k(lowering, operation.operands[1])
    if along_k:
        lanes = lowering.target.lanes // (2 if operation.operands[1].type.element == "f64" else 1)
        return "inner" if m <= min(FEW_ROWS, lanes) and k >= 2 * lanes and m * n >= lanes else "panels"
    vectors = -(-n // lowering.target.lanes)
    return "direct" if (m + 1) * vectors < lowering.target.registers else "panels"


def runs_along_k(lowering, value: Value) -> bool:
    return lowering.axis_of(value) == len(value.type.shape) - 2


def _compute(lowering, operation: Operation, k: int, n: int, form: str) -> str:
    elements = {operand.type.element for operand in operation.operands[:2]}
    a_along_k = not runs_along_k(lowering, operation.operands[0])
    pairs = lowering.target.has_bf16_dot and k % 2 == 0 and n >= 16 and form != "direct"
    if elements == {"bf16"} and pairs and a_along_k:
        return "bf16"
    if elements <= {"f16", "bf16", "f32", *FORMATS}:
        return "f32"
    if elements == {"f64"}:
        return "f64"
    if elements <= {"i8", "i16", "i32"}:
        return "i32"
    raise operation.unsupported(f"operands of {' and '.join(sorted(elements))}")


def convert(b, lanes: Lanes, element: str) -> V:
    """Lanes as a vector of another element type."""
    value = as_vector(b, lanes)
    if lanes.element == element:
        return value
    if element == "i32":
        return b.cast("sext", value, llvm_type(element, lanes.count))
    return change(b, value, lanes.element, element, lanes.count)


def in_batch(position: Position, batch: tuple) -> Position:
    axis = None if position.axis is None else position.axis + len(batch)
    return Position((*batch, *position.index), axis, position.count)


def fuse(b, shape: Shape, left: V, right: V, total: V) -> V:
    """``total + left * right``, summing pairs where the operands are bf16."""
    if shape.compute == "i32":
        return b.binary("add", total, b.binary("mul", left, right))
    if shape.pair == 2:
        pairs = "<32 x bfloat>"
        left, right = b.cast("bitcast", left, pairs), b.cast("bitcast", right, pairs)
        return b.call(total.type, "llvm.x86.avx512bf16.dpbf16ps.512", total, left, right)
    return b.intrinsic("fma", left, right, total)
