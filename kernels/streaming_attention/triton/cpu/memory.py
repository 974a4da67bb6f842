"""Loads, stores, atomics and buffers: where lanes meet memory.

A step of one along the lanes is a vector access, a step of zero one scalar, anything else a gather or scatter.
"""

from __future__ import annotations

from dataclasses import dataclass

from streaming_attention.triton.cpu.builder import BYTES, V, llvm_type, mangle
from streaming_attention.triton.cpu.ir import POINTER, Operation
from streaming_attention.triton.cpu.lanes import Lanes, Position, as_scalar, as_vector, uniform, vector
from streaming_attention.triton.cpu.pointwise import as_pointer, rule


@dataclass(frozen=True)
class Buffer:
    """Scratch memory of a tensor.

    Parameters
    ----------
    base : V
        Its address.
    element : str
    strides : tuple of int
        In elements, per axis.
    pointee : str, optional
        Where the elements are pointers.
    """

    base: V
    element: str
    strides: tuple[int, ...]
    pointee: str | None = None

    def address(self, b, index) -> V:
        place = 0
        for coordinate, stride in zip(index, self.strides, strict=True):
            place = b.add(place, b.times(coordinate, stride))
        return b.offset(self.base, place, self.element)

    def read(self, b, position: Position) -> Lanes:
        """The lanes at a position."""
        address = self.address(b, position.index)
        stride = 0 if position.axis is None else self.strides[position.axis]
        if stride == 0:
            result = uniform(self.element, position.count, _load(b, self.element, address, 1))
        elif stride == 1:
            result = vector(self.element, _load(b, self.element, address, position.count), position.count)
        else:
            result = vector(
                self.element, _load_strided(b, self.element, address, stride, position.count), position.count
            )
        return as_pointer(result, self.pointee) if self.element == POINTER else result

    def write(self, b, position: Position, lanes: Lanes) -> None:
        """Store lanes at a position."""
        address = self.address(b, position.index)
        stride = 1 if position.axis is None else self.strides[position.axis]
        value = as_vector(b, lanes) if position.count > 1 else as_scalar(b, lanes)
        if stride == 1 or position.count == 1:
            _store(b, self.element, value, address, position.count)
            return
        for lane in range(position.count):
            _store(b, self.element, b.extract(value, lane), b.offset(address, lane * stride, self.element), 1)


def _load(b, element: str, address: V, count: int) -> V:
    """Consecutive elements; booleans are bytes in memory."""
    kind = llvm_type("i8" if element == "i1" else element, count)
    value = b.load(kind, address, BYTES[element])
    return b.cast("trunc", value, llvm_type("i1", count)) if element == "i1" else value


def _store(b, element: str, value: V, address: V, count: int) -> None:
    if element == "i1":
        value = b.cast("zext", value, llvm_type("i8", count))
    b.store(value, address, BYTES[element])


def _load_strided(b, element: str, address: V, stride: int, count: int) -> V:
    result = V(llvm_type(element, count), "poison")
    for lane in range(count):
        result = b.insert(result, _load(b, element, b.offset(address, lane * stride, element), 1), lane)
    return result


def lane_step(pointer: Lanes):
    """How many elements lie between neighbouring lanes' addresses; None where that varies."""
    if pointer.offset is None:
        return 0 if pointer.is_uniform else None
    if pointer.scalar is None or pointer.offset.vector is not None:
        return None
    return pointer.offset.step


@rule("tt.load")
def load(lowering, operation: Operation, position: Position) -> Lanes:
    pointer = lowering.evaluate(operation.operands[0], position)
    mask = lowering.evaluate(operation.operands[1], position) if len(operation.operands) > 1 else None
    kind = operation.result.type
    step = lane_step(pointer)
    if isinstance(step, int) and step == 0 and (mask is None or mask.is_uniform):
        other = _other(lowering, operation, Position(position.index, None, 1), 1)
        address = as_scalar(lowering.b, pointer)
        mask = None if mask is None else as_scalar(lowering.b, mask)
        result = uniform(kind.element, position.count, _masked(lowering.b, kind.element, address, mask, other, 1))
    else:
        result = _load_lanes(lowering, operation, position, pointer, mask, step)
    return as_pointer(result, kind.pointee) if kind.element == POINTER else result


def _other(lowering, operation: Operation, position: Position, count: int) -> V:
    """What masked-off lanes get: the third operand, zero without one."""
    if len(operation.operands) > 2:
        lanes = lowering.evaluate(operation.operands[2], position)
        return as_vector(lowering.b, lanes) if count > 1 else as_scalar(lowering.b, lanes)
    return V(llvm_type(operation.result.type.element, count), "zeroinitializer")


def _load_lanes(lowering, operation, position, pointer: Lanes, mask: Lanes | None, step) -> Lanes:
    b, element, count = lowering.b, operation.result.type.element, position.count
    if isinstance(step, int) and step == 1:
        base = b.offset(pointer.scalar, pointer.offset.scalar, pointer.pointee)
        test = None if mask is None else as_vector(b, mask)
        other = None if mask is None else _other(lowering, operation, position, count)
        return vector(element, _masked(b, element, base, test, other, count), count)
    addresses = as_vector(b, pointer)
    test = V(f"<{count} x i1>", "splat (i1 true)") if mask is None else as_vector(b, mask)
    other = _other(lowering, operation, position, count)
    return vector(element, gather(b, element, addresses, test, other, count), count)


def gather(b, element: str, addresses: V, mask: V, other: V, count: int) -> V:
    kind = llvm_type("i8" if element == "i1" else element, count)
    if element == "i1":
        other = b.cast("zext", other, kind)
    name = f"llvm.masked.gather.{mangle(kind)}.v{count}p0"
    value = b.call(kind, name, addresses, V("i32", str(BYTES[element])), mask, other)
    return b.cast("trunc", value, llvm_type("i1", count)) if element == "i1" else value


def _masked(b, element: str, address: V, mask: V | None, other: V | None, count: int) -> V:
    """Consecutive elements where the mask holds, ``other`` elsewhere."""
    if mask is None or mask.name in ("true", "1"):
        return _load(b, element, address, count)
    if count == 1:
        return _load_if(b, element, address, mask, other)
    kind = llvm_type("i8" if element == "i1" else element, count)
    if element == "i1":
        other = b.cast("zext", other, kind)
    value = b.call(kind, f"llvm.masked.load.{mangle(kind)}.p0", address, V("i32", str(BYTES[element])), mask, other)
    return b.cast("trunc", value, llvm_type("i1", count)) if element == "i1" else value


def _load_if(b, element: str, address: V, mask: V, other: V) -> V:
    kind = llvm_type(element)
    slot = b.slot(kind)
    b.write(slot, other)
    with b.when(mask):
        b.write(slot, _load(b, element, address, 1))
    return b.read(slot, kind)


def lower_store(lowering, operation: Operation) -> None:
    """``tt.store``: a loop nest along the axis where the addresses lie side by side."""
    shape = operation.operands[1].type.shape
    for position in lowering.nest(shape, lowering.axis_of(operation.operands[0])):
        _store_lanes(lowering, operation, position)


def _store_lanes(lowering, operation: Operation, position: Position) -> None:
    b, count = lowering.b, position.count
    pointer, value, *rest = (lowering.evaluate(operand, position) for operand in operation.operands)
    mask = rest[0] if rest else None
    element, step = value.element, lane_step(pointer)
    if count == 1:
        address = as_scalar(b, pointer)
        if mask is None:
            _store(b, element, as_scalar(b, value), address, 1)
        else:
            with b.when(as_scalar(b, mask)):
                _store(b, element, as_scalar(b, value), address, 1)
        return
    vectored = as_vector(b, value)
    if isinstance(step, int) and step == 1:
        address = b.offset(pointer.scalar, pointer.offset.scalar, pointer.pointee)
        if mask is None:
            _store(b, element, vectored, address, count)
            return
        _masked_call(b, "store", element, vectored, address, as_vector(b, mask), count)
        return
    test = V(f"<{count} x i1>", "splat (i1 true)") if mask is None else as_vector(b, mask)
    _masked_call(b, "scatter", element, vectored, as_vector(b, pointer), test, count)


def _masked_call(b, name: str, element: str, value: V, address: V, mask: V, count: int) -> None:
    if element == "i1":
        value = b.cast("zext", value, llvm_type("i8", count))
    suffix = "p0" if name == "store" else f"v{count}p0"
    b.call(
        "void", f"llvm.masked.{name}.{mangle(value.type)}.{suffix}", value, address, V("i32", str(BYTES[element])), mask
    )


ATOMICS = {"fadd": "fadd", "add": "add", "and": "and", "or": "or", "xor": "xor", "exch": "xchg",
           "max": "max", "min": "min", "umax": "umax", "umin": "umin"}  # fmt: skip


def lower_atomic(lowering, operation: Operation) -> None:
    """``tt.atomic_rmw`` and ``tt.atomic_cas``, an element at a time; the old values go into a buffer."""
    kind = operation.result.type
    target = lowering.allocate(kind) if kind.is_tensor else None
    for position in lowering.nest(kind.shape, None):
        parts = [as_scalar(lowering.b, lowering.evaluate(operand, position)) for operand in operation.operands]
        if operation.name == "tt.atomic_cas":
            old = _compare_and_swap(lowering.b, parts, kind.element)
        else:
            old = _modify(lowering.b, operation, parts, kind.element)
        if target is None:
            lowering.scalars[operation.result] = uniform(kind.element, 1, old)
        else:
            target.write(lowering.b, position, uniform(kind.element, 1, old))
    if target is not None:
        lowering.buffers[operation.result] = target


def _modify(b, operation: Operation, parts: list[V], element: str) -> V:
    address, value, *mask = parts
    name = ATOMICS.get(operation.words[0])
    if name is None:
        raise operation.unsupported(operation.words[0])
    if not mask:
        return b.make(value.type, f"atomicrmw {name} {address}, {value} seq_cst")
    slot = b.slot(value.type)
    b.write(slot, V(value.type, "zeroinitializer"))
    with b.when(mask[0]):
        b.write(slot, b.make(value.type, f"atomicrmw {name} {address}, {value} seq_cst"))
    return b.read(slot, value.type)


def _compare_and_swap(b, parts: list[V], element: str) -> V:
    address, expected, value = parts
    bits = V(f"i{8 * BYTES[element]}", "0").type
    old, new = (b.cast("bitcast", side, bits) for side in (expected, value))
    pair = b.make(f"{{ {bits}, i1 }}", f"cmpxchg {address}, {old}, {new} seq_cst seq_cst")
    return b.cast("bitcast", b.make(bits, f"extractvalue {pair}, 0"), llvm_type(element))
