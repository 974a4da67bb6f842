"""What one step of a loop holds of a tensor: some lanes of it, as cheaply as they can be said.

A tensor expression is evaluated at a :class:`Position`: one scalar index per axis, and at most one axis along which
``count`` lanes run. The result, :class:`Lanes`, is *uniform* (one scalar for all lanes), *affine* (a scalar and a step:
index arithmetic) or a *vector*. Uniform and affine lanes cost scalar instructions, and an affine address with step one
is a plain vector load: this is where most of a kernel's index arithmetic disappears.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from streaming_attention.triton.cpu.builder import Builder, V, as_i64, llvm_type


@dataclass(frozen=True)
class Position:
    """Where a tensor is evaluated.

    Parameters
    ----------
    index : tuple of int or V
        The (first) index along each axis.
    axis : int or None
        Axis along which the lanes run; None where all lanes hold the same element.
    count : int
        Lanes.
    """

    index: tuple
    axis: int | None = None
    count: int = 1

    def at(self, axis: int, index) -> Position:
        """The same with another index along one axis; lanes that ran along it no longer do."""
        moved = (*self.index[:axis], index, *self.index[axis + 1 :])
        return Position(moved, None if axis == self.axis else self.axis, self.count)

    def drop(self, axis: int) -> Position:
        """The position in a tensor without that axis."""
        kept = (*self.index[:axis], *self.index[axis + 1 :])
        lanes = None if self.axis == axis or self.axis is None else self.axis - (self.axis > axis)
        return Position(kept, lanes, self.count)

    def insert(self, axis: int, index) -> Position:
        """The position in a tensor with one more axis, at ``axis``."""
        lanes = None if self.axis is None else self.axis + (self.axis >= axis)
        return Position((*self.index[:axis], index, *self.index[axis:]), lanes, self.count)

    def step(self, axis: int) -> int:
        """How far a lane is from its neighbour along an axis."""
        return int(axis == self.axis)


@dataclass(frozen=True)
class Lanes:
    """``count`` elements: ``scalar + lane * step``, or ``vector`` where that can't be said.

    Parameters
    ----------
    element : str
        TTIR's element type.
    scalar : V, optional
    step : int or V
        0 where uniform. Of the scalar's type (i64 for pointers, in elements).
    vector : V, optional
    pointee : str, optional
        For pointers, which hold ``scalar`` (the base, a ``ptr``) and ``offset`` (lanes of i64, in elements).
    """

    element: str
    count: int
    scalar: V | None = None
    step: int | V = 0
    vector: V | None = None
    offset: Lanes | None = None
    pointee: str | None = None

    @property
    def is_uniform(self) -> bool:
        if self.element == "ptr" and self.offset is not None:
            return self.scalar is not None and self.offset.is_uniform
        return self.vector is None and isinstance(self.step, int) and self.step == 0

    @property
    def is_affine(self) -> bool:
        return self.vector is None and self.element != "ptr"


def uniform(element: str, count: int, scalar: V) -> Lanes:
    return Lanes(element, count, scalar)


def vector(element: str, value: V, count: int) -> Lanes:
    return Lanes(element, count, value) if count == 1 else Lanes(element, count, vector=value)


def as_vector(b: Builder, lanes: Lanes) -> V:
    """The lanes as an LLVM vector (a scalar for one lane)."""
    if lanes.element == "ptr":
        return _addresses(b, lanes)
    if lanes.vector is not None:
        return lanes.vector
    spread = b.splat(lanes.scalar, lanes.count)
    if lanes.is_uniform or lanes.count == 1:
        return spread
    kind = llvm_type(lanes.element)
    iota = V(spread.type, f"<{', '.join(f'{kind} {lane}' for lane in range(lanes.count))}>")
    if lanes.step == 1:
        return b.binary("add", spread, iota)
    step = V(kind, str(lanes.step)) if isinstance(lanes.step, int) else lanes.step
    return b.binary("add", spread, b.binary("mul", iota, b.splat(step, lanes.count)))


def as_scalar(b: Builder, lanes: Lanes) -> V:
    """The one element of uniform lanes."""
    if lanes.element == "ptr" and lanes.offset is not None:
        return b.offset(lanes.scalar, lanes.offset.scalar, lanes.pointee)
    return lanes.scalar


def _addresses(b: Builder, lanes: Lanes) -> V:
    if lanes.is_uniform:
        return b.splat(as_scalar(b, lanes), lanes.count)
    if lanes.offset is None:
        return lanes.vector
    base = lanes.scalar or lanes.vector
    offsets = as_vector(b, lanes.offset)
    kind = llvm_type(lanes.pointee) if lanes.pointee != "i1" else "i8"
    return b.make(f"<{lanes.count} x ptr>", f"getelementptr {kind}, {base}, {offsets}")


def plus(b: Builder, left: Lanes, right: Lanes, sign: str = "add") -> Lanes:
    """Sum or difference (``sign`` is ``add`` or ``sub``) of integers, affine where both are."""
    if left.vector is not None or right.vector is not None:
        return _vectors(b, sign, left, right)
    scalar = b.binary(sign, left.scalar, right.scalar)
    return replace(left, scalar=scalar, step=_combine(b, sign, left, right))


def _combine(b: Builder, sign: str, left: Lanes, right: Lanes) -> int | V:
    if isinstance(left.step, int) and isinstance(right.step, int):
        return left.step + right.step if sign == "add" else left.step - right.step
    if right.step == 0 or (left.step == 0 and sign == "add"):
        return left.step if right.step == 0 else right.step
    kind = left.scalar.type
    steps = [V(kind, str(step)) if isinstance(step, int) else step for step in (left.step, right.step)]
    return b.binary(sign, *steps)


def product(b: Builder, left: Lanes, right: Lanes) -> Lanes:
    """Product of integers, affine where one of them is uniform and the other affine."""
    if left.is_uniform and not right.is_uniform:
        left, right = right, left
    if left.vector is not None or not right.is_uniform:
        return _vectors(b, "mul", left, right)
    factor = _literal(right.scalar)
    if left.step == 0 or factor is None or not isinstance(left.step, int):
        step = left.step if left.step == 0 else _scaled(b, left.step, right.scalar)
    else:
        step = left.step * factor
    return replace(left, scalar=b.binary("mul", left.scalar, right.scalar), step=step)


def _scaled(b: Builder, step: int | V, factor: V) -> V:
    if isinstance(step, int):
        return factor if step == 1 else b.binary("mul", V(factor.type, str(step)), factor)
    return b.binary("mul", step, factor)


def _literal(value: V) -> int | None:
    return None if value.name.startswith("%") else int(value.name)


def _vectors(b: Builder, name: str, left: Lanes, right: Lanes) -> Lanes:
    return vector(left.element, b.binary(name, as_vector(b, left), as_vector(b, right)), left.count)


def widen(b: Builder, lanes: Lanes, element: str, name: str) -> Lanes:
    """Sign- or zero-extend (``sext``, ``zext``) or truncate integers; affine stays affine, as indices don't wrap."""
    if lanes.vector is not None:
        return vector(element, b.cast(name, lanes.vector, llvm_type(element, lanes.count)), lanes.count)
    if name != "sext" and not lanes.is_uniform:
        return vector(element, b.cast(name, as_vector(b, lanes), llvm_type(element, lanes.count)), lanes.count)
    kind = llvm_type(element)
    step = lanes.step if isinstance(lanes.step, int) else b.cast(name, lanes.step, kind)
    return Lanes(element, lanes.count, b.cast(name, lanes.scalar, kind), step)


def advance(b: Builder, pointer: Lanes, offset: Lanes) -> Lanes:
    """A pointer moved by integer lanes, in elements."""
    if offset.element != "i64":
        offset = widen(b, offset, "i64", "sext")
    if pointer.offset is not None:
        offset = plus(b, pointer.offset, offset)
    return replace(pointer, offset=offset)


def iota(index, count: int, step: int, b: Builder) -> Lanes:
    """``index + lane * step`` as i32."""
    scalar = V("i32", str(index)) if isinstance(index, int) else b.cast("trunc", as_i64(index), "i32")
    return Lanes("i32", count, scalar, step)
