"""A kernel's operations, in order, to one LLVM function that runs one program of the grid.

Scalars are computed where they are defined. A tensor is an expression until something needs it: a store, a product, a
reduction, or :mod:`plan`'s wish to keep it. That consumer opens a loop nest and evaluates the expression at each step.
"""

from __future__ import annotations

from collections.abc import Iterator

from streaming_attention.triton.cpu import branches, control, dot, memory, reduce, report, scaled
from streaming_attention.triton.cpu import libdevice as libdevice  # adds to RULES, as moves does
from streaming_attention.triton.cpu import moves as moves
from streaming_attention.triton.cpu.builder import BYTES, Builder, V, i64, llvm_type
from streaming_attention.triton.cpu.ir import POINTER, Block, Function, Operation, Type, Value
from streaming_attention.triton.cpu.lanes import Lanes, Position, as_scalar, uniform, vector
from streaming_attention.triton.cpu.memory import Buffer
from streaming_attention.triton.cpu.plan import make_plan
from streaming_attention.triton.cpu.pointwise import RULES, as_pointer
from streaming_attention.triton.cpu.product import Shape
from streaming_attention.triton.cpu.steps import unit_axis
from streaming_attention.triton.cpu.target import Target

ALIGNMENT = 64
SCRATCH_LIMIT = 256 << 20
"""Bytes of scratch that one program may need; beyond it the tile sizes are surely a mistake."""

EFFECTS = {
    "tt.store": memory.lower_store, "tt.atomic_rmw": memory.lower_atomic, "tt.atomic_cas": memory.lower_atomic,
    "tt.reduce": reduce.lower_reduce, "tt.scan": reduce.lower_scan, "tt.dot": dot.lower_dot,
    "tt.dot_scaled": scaled.lower_dot_scaled,
    "tt.histogram": reduce.lower_histogram, "tt.gather": reduce.lower_gather,
    "tt.map_elementwise": reduce.lower_map_elementwise,
    "scf.for": control.lower_for, "scf.while": branches.lower_while, "scf.if": branches.lower_if,
    "tt.return": branches.lower_return, "tt.call": branches.lower_call,
    "cf.br": branches.lower_branch, "cf.cond_br": branches.lower_branch, "ub.unreachable": branches.lower_unreachable,
    "tt.print": report.lower_print, "tt.assert": report.lower_assert, "llvm.intr.assume": branches.lower_assume,
    "ttg.barrier": branches.lower_barrier, "gpu.barrier": branches.lower_barrier,
}  # fmt: skip
"""Operations that run where they stand, rather than where their result is used."""


class Lowering:
    """The state of lowering one kernel.

    Attributes
    ----------
    b : Builder
    scalars : dict of Value to Lanes
        One lane each.
    buffers : dict of Value to Buffer
    drifting : dict of Value to (Value, V slot)
        Loop arguments that are their initial value plus a running scalar.
    assertions : list of str
        What each assertion says when it fails.
    """

    def __init__(self, function: Function, target: Target):
        self.function, self.target = function, target
        self.b = Builder(
            f"define void @{mangled(function.name)}"
            "(ptr %isa, ptr noalias %arguments, i64 %program, ptr noalias %scratch)"
        )
        self.scalars: dict[Value, Lanes] = {}
        self.buffers: dict[Value, Buffer] = {}
        self.drifting: dict[Value, tuple[Value, V]] = {}
        self.packed: dict = {}
        self.packed_as: dict[Value, Shape] = {}
        self.turns: list = []
        self.in_place: dict[Value, Buffer] = {}
        self.plan = make_plan(function)
        self.late = set(self.plan.written_by.values())
        self.labels = {block.label: f"mlir.{block.label}" for block in function.blocks}
        self.block_carriers: dict = {}
        self.memo: dict = {}
        self.assertions: list[str] = []
        self.used = self.peak = 0

    def run(self) -> str:
        """The module's text."""
        self._prologue()
        branches.declare_block_arguments(self, self.function.blocks)
        for block in self.function.blocks:
            if block is not self.function.blocks[0]:
                self.b.start(self.labels[block.label])
                branches.show_block_arguments(self, block)
            self.block(block)
        return "\n".join([self.b.text(), *sorted(self.b.declarations)])

    def _prologue(self) -> None:
        """Arguments out of their 8-byte slots, the grid behind them, the program's coordinates out of its number."""
        b = self.b
        for place, argument in enumerate(self.function.arguments):
            kind = argument.type
            storage = "i8" if kind.element == "i1" else llvm_type(kind.element)
            value = b.load(storage, b.offset(V("ptr", "%arguments"), 8 * place), 8)
            if kind.element == "i1":
                value = b.cast("trunc", value, "i1")
            lanes = uniform(kind.element, 1, value)
            self.scalars[argument] = as_pointer(lanes, kind.pointee) if kind.element == POINTER else lanes
        grid = 8 * len(self.function.arguments)
        counts = [b.load("i32", b.offset(V("ptr", "%arguments"), grid + 4 * axis), 4) for axis in range(3)]
        wide = [b.cast("zext", count, "i64") for count in counts]
        rest = b.binary("udiv", V("i64", "%program"), wide[0])
        places = [
            b.binary("urem", V("i64", "%program"), wide[0]),
            b.binary("urem", rest, wide[1]),
            b.binary("udiv", rest, wide[1]),
        ]
        self.program_ids = [b.cast("trunc", place, "i32") for place in places]
        self.program_counts = counts

    # operations -------------------------------------------------------------------------------------------------

    def block(self, block: Block) -> None:
        """Lower the operations of a block."""
        for operation in block.operations:
            self.operation(operation)

    def operation(self, operation: Operation) -> None:
        if operation.name in EFFECTS:
            self.memo = {}
            EFFECTS[operation.name](self, operation)
            return
        if operation.name in ("scf.yield", "scf.condition", "tt.reduce.return", "tt.scan.return"):
            return
        if operation.name not in RULES:
            raise operation.unsupported()
        for value in operation.results:
            if not value.type.is_tensor:
                self.memo = {}
                self.scalars[value] = self.apply(operation, value, Position(()))
            elif value in self.plan.kept and value not in self.late:
                self.keep(value)

    def keep(self, value: Value) -> Buffer:
        """Evaluate a tensor into a buffer."""
        target, axis = self.room(value), self.axis_of(value)
        for position in self.nest(value.type.shape, axis):
            target.write(self.b, position, self.evaluate(value, position))
        self.buffers[value] = target
        return target

    def room(self, value: Value) -> Buffer:
        """Memory for a kept tensor: that of the product it is made from, where nobody else needs that any more."""
        product = self.plan.over.get(value)
        if product is None or product in self.in_place or product not in self.buffers:
            return self.allocate(value.type)
        old = self.buffers[product]
        return Buffer(old.base, value.type.element, old.strides)

    # evaluation -------------------------------------------------------------------------------------------------

    def evaluate(self, value: Value, position: Position) -> Lanes:
        """The lanes of a value at a position."""
        key = (value, position)
        if key not in self.memo:
            self.memo[key] = self._evaluate(value, position)
        return self.memo[key]

    def _evaluate(self, value: Value, position: Position) -> Lanes:
        if value in self.scalars:
            part = self.scalars[value]
            return Lanes(part.element, position.count, part.scalar, offset=part.offset, pointee=part.pointee)
        if value in self.buffers:
            return self.buffers[value].read(self.b, position)
        if value in self.drifting:
            return control.evaluate_drifting(self, value, position)
        operation = value.operation
        if operation is None or operation.name not in RULES:
            raise RuntimeError(f"{value.name} has neither a value nor a rule ({operation and operation.name})")
        return self.apply(operation, value, position)

    def apply(self, operation: Operation, value: Value, position: Position) -> Lanes:
        """An operation's rule; one with several results is told which."""
        if len(operation.results) > 1:
            return RULES[operation.name](self, operation, position, value.index)
        return RULES[operation.name](self, operation, position)

    def evaluate_moved(self, shape: tuple[int, ...], position: Position, source: Value) -> Lanes:
        """A tensor whose elements lie in ``source`` in the same row-major order but another shape."""
        b, flat = self.b, 0
        for index, extent in zip(position.index, shape, strict=True):
            flat = b.add(b.times(flat, extent), index)
        lanes = position.axis
        if lanes is not None:
            inner = 1
            for extent in shape[lanes + 1 :]:
                inner *= extent
            axis, run = _axis_of_stride(source.type.shape, inner)
            if axis is None or run % position.count:
                return self.scattered(source, flat, inner, position)
            lanes = axis
        return self.evaluate(source, Position(self.unravel(flat, source.type.shape), lanes, position.count))

    def scattered(self, source: Value, flat, inner: int, position: Position) -> Lanes:
        """Lanes that don't run along one axis of ``source``: an element at a time."""
        parts = []
        for lane in range(position.count):
            where = Position(self.unravel(self.b.add(flat, lane * inner), source.type.shape))
            parts.append(as_scalar(self.b, self.evaluate(source, where)))
        return self.gathered(source.type, parts)

    def element_by_element(self, value: Value, position: Position) -> Lanes:
        """The lanes at a position, each from a scalar evaluation."""
        parts = []
        for lane in range(position.count):
            index = self.b.add(position.index[position.axis], lane)
            where = Position(position.at(position.axis, index).index)
            parts.append(as_scalar(self.b, self.evaluate(value, where)))
        return self.gathered(value.type, parts)

    def gathered(self, kind: Type, parts: list[V]) -> Lanes:
        result = V(llvm_type(kind.element, len(parts)), "poison")
        for lane, part in enumerate(parts):
            result = self.b.insert(result, part, lane)
        lanes = vector(kind.element, result, len(parts))
        return as_pointer(lanes, kind.pointee) if kind.element == POINTER else lanes

    def unravel(self, flat, shape: tuple[int, ...]) -> tuple:
        """Row-major index of a flat one; extents are powers of two, so LLVM shifts and masks."""
        index = []
        for extent in reversed(shape):
            if isinstance(flat, int):
                index.append(flat % extent)
                flat //= extent
            elif extent == 1:
                index.append(0)
            else:
                index.append(self.b.binary("urem", flat, i64(extent)))
                flat = self.b.binary("udiv", flat, i64(extent))
        return tuple(reversed(index))

    # loop nests -------------------------------------------------------------------------------------------------

    def axis_of(self, value: Value) -> int | None:
        """The axis to run lanes along: where memory is contiguous, else the last one with lanes to fill."""
        shape = value.type.shape
        if not shape:
            return None
        held = self.buffers.get(value)
        axis = held.strides.index(1) if held else unit_axis(value, self.buffers)
        if axis is not None and shape[axis] > 1:
            return axis
        return max(range(len(shape)), key=lambda place: (shape[place] > 1, place))

    def nest(self, shape: tuple[int, ...], axis: int | None, width: int | None = None) -> Iterator[Position]:
        """Positions that cover a tensor, inside the loops that run over it; lanes along ``axis`` innermost."""
        count = 1 if axis is None else min(shape[axis], width or self.target.lanes)
        order = [place for place in range(len(shape)) if place != axis]
        index: list = [0] * len(shape)

        def loops(depth: int) -> Iterator[Position]:
            if depth < len(order):
                with self.b.loop(shape[order[depth]]) as place:
                    index[order[depth]] = place
                    yield from loops(depth + 1)
                return
            if axis is None:
                self.memo = {}
                yield Position(tuple(index))
                return
            with self.b.loop(shape[axis], count) as place:
                index[axis] = place
                self.memo = {}
                yield Position(tuple(index), axis if count > 1 else None, count)

        yield from loops(0)
        self.memo = {}

    # scratch ----------------------------------------------------------------------------------------------------

    def allocate(self, kind: Type, padded: bool = True) -> Buffer:
        """A buffer of a tensor's shape, row-major; rows of a matrix padded by a cache line against set conflicts."""
        *outer, stride = kind.shape or (1,)
        size, strides = BYTES[kind.element], [1]
        if padded and outer and stride * size >= 256:
            stride += ALIGNMENT // size
        for extent in reversed(outer):
            strides.insert(0, stride)
            stride *= extent
        return Buffer(self.reserve(stride * size), kind.element, tuple(strides), kind.pointee)

    def reserve(self, size: int) -> V:
        """Address of fresh scratch memory."""
        place = self.used
        self.used += -(-size // ALIGNMENT) * ALIGNMENT
        self.peak = max(self.peak, self.used)
        if self.peak > SCRATCH_LIMIT:
            raise MemoryError(
                f"{self.function.name}: tensors of one program need {self.peak >> 20} MiB of scratch, "
                f"at most {SCRATCH_LIMIT >> 20} are allowed; use smaller tiles"
            )
        return self.b.offset(V("ptr", "%scratch"), place)


def _axis_of_stride(shape: tuple[int, ...], inner: int) -> tuple[int | None, int]:
    """The axis along which the flat index moves by ``inner``, and its extent."""
    stride = 1
    for axis in reversed(range(len(shape))):
        if stride == inner and shape[axis] > 1:
            return axis, shape[axis]
        stride *= shape[axis]
    return None, 0


def mangled(name: str) -> str:
    """A kernel's name as an LLVM identifier."""
    return "kernel_" + "".join(char if char.isalnum() else "_" for char in name)


def lower(function: Function, target: Target) -> tuple[str, int, tuple[str, ...]]:
    """LLVM IR of a kernel, the bytes of scratch that one program needs, and what its assertions say."""
    lowering = Lowering(function, target)
    text = lowering.run()
    return text, max(lowering.peak, ALIGNMENT), tuple(lowering.assertions)
