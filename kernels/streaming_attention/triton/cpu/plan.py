"""Which tensors get memory. Everything else stays an expression, evaluated where it is used.

A tensor is *kept* in a buffer when evaluating it again would be dear or wrong: it holds a load, an exponential or a
division and more than one place needs it, or a loop does, or it is small and spread over something bigger; or something
between its definition and its use may write the memory that it loads. Products, reductions, scans and what a loop
carries always have buffers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streaming_attention.triton.cpu.expressions import is_held, parts_of
from streaming_attention.triton.cpu.ir import ALWAYS_KEPT, POINTER, Function, Operation, Value
from streaming_attention.triton.cpu.share import over_products, packed_together, written_by_reductions
from streaming_attention.triton.cpu.steps import drifts_of

DEAR = {"tt.load", "arith.divf", "arith.remf", "arith.divsi", "arith.divui", "arith.remsi", "arith.remui",
        "tt.precise_divf", "tt.precise_sqrt"}  # fmt: skip
CHEAP_MATH = {"math.absf", "math.absi", "math.floor", "math.ceil", "math.fma", "math.sqrt"}
WRITES = {"tt.store", "tt.atomic_rmw", "tt.atomic_cas", "tt.print", "tt.assert"}
MOVES = {"tt.reshape", "tt.join", "tt.split", "tt.cat"}
"""Operations whose lanes seldom line up with their operand's: a dear operand is better computed beforehand."""

MOST_OPERATIONS = 64
"""Operations of an expression that may be evaluated at several places."""


@dataclass
class Plan:
    """What to keep, and what a loop's argument drifts by.

    Parameters
    ----------
    kept : set of Value
        Tensors that are computed into a buffer at their definition.
    drifts : dict
        Loop argument -> the scalars, uniform over the tensor, that a turn of the loop adds to it: such a tensor of
        indices or pointers is its initial expression plus one running scalar.
    written_by : dict
        Reduction -> a kept tensor that it writes while reading it, rather than a pass of its own before.
    over : dict
        Kept tensor -> a product whose memory it takes over.
    packed_once : set of Value
        Right operands of several products of a block, which the first one packs for all.
    """

    kept: set[Value] = field(default_factory=set)
    drifts: dict[Value, list[Value]] = field(default_factory=dict)
    written_by: dict[Operation, Value] = field(default_factory=dict)
    over: dict[Value, Value] = field(default_factory=dict)
    packed_once: set[Value] = field(default_factory=set)


def make_plan(function: Function) -> Plan:
    """Decide for every tensor of a kernel, from its last operation back to its first."""
    plan = Plan()
    operations = list(function.walk())
    for operation in operations:
        if operation.name == "scf.for":
            plan.drifts.update(drifts_of(operation))
    dear = _dear_values(operations)
    order = {operation: place for place, operation in enumerate(operations)}
    writers = sorted(order[operation] for operation in operations if operation.name in WRITES)
    plan.kept.update(_unwieldy(operations))
    decider = _Decider(plan, dear, order, writers)
    decider.decide(reversed(operations))
    plan.written_by = written_by_reductions(plan.kept, decider.sites, order, writers)
    plan.over = over_products(plan.kept, decider.sites, order)
    return plan


def is_dear(operation: Operation) -> bool:
    return operation.name in DEAR or (operation.name.startswith("math.") and operation.name not in CHEAP_MATH)


def _dear_values(operations: list[Operation]) -> set[Value]:
    """Tensors whose evaluation holds a dear operation, not counting what always has a buffer."""
    dear: set[Value] = set()
    for operation in operations:
        if operation.name in ALWAYS_KEPT:
            continue
        if is_dear(operation) or any(operand in dear for operand in operation.operands):
            dear.update(value for value in operation.results if value.type.is_tensor)
    return dear


def _unwieldy(operations: list[Operation]) -> set[Value]:
    """Tensors whose expressions, written out as trees, grow past a limit and that several others use: a sorting network
    would double its expression at every step.
    """
    weight: dict[Value, int] = {}
    kept: set[Value] = set()
    for operation in operations:
        total = 1 + sum(weight.get(operand, 0) for operand in operation.operands)
        for value in operation.results:
            always = operation.name in ALWAYS_KEPT or not value.type.is_tensor or value.type.element == POINTER
            if not always and total > MOST_OPERATIONS and len(value.users) > 1:
                kept.add(value)
            weight[value] = 1 if always or value in kept else total
    return kept


def contains_load(value: Value, kept: set[Value]) -> list[Operation]:
    """Loads that evaluating a value runs."""
    is_leaf = lambda part: is_held(part) or part in kept or not part.type.is_tensor  # noqa: E731
    made = (part.operation for part in parts_of(value, is_leaf) if not is_leaf(part))
    return [operation for operation in made if operation.name == "tt.load"]


class _Decider:
    def __init__(self, plan: Plan, dear: set[Value], order: dict[Operation, int], writers: list[int]):
        self.plan, self.dear, self.order, self.writers = plan, dear, order, writers
        self.sites: dict[Value, set[Operation]] = {}

    def decide(self, operations) -> None:
        for operation in operations:
            for value in operation.results:
                if value.type.is_tensor:
                    self._value(operation, value)
            if operation.name == "tt.broadcast":
                self._spread(operation)
            elif operation.name in MOVES:
                self.plan.kept.update(operand for operand in operation.operands if operand in self.dear)

    def _value(self, operation: Operation, value: Value) -> None:
        sites: set[Operation] = set()
        packers = packed_together(value)
        if packers:
            self.plan.packed_once.add(value)
        for user in set(value.users).difference(packers[1:]):
            lazy = user.name not in ALWAYS_KEPT and user.results and user.result.type.is_tensor
            kept = not lazy or any(result in self.plan.kept for result in user.results)
            sites |= {user} if kept else set().union(*(self.sites[result] for result in user.results))
        self.sites[value] = sites
        if (
            operation.name in ALWAYS_KEPT
            or value in self.plan.kept
            or (
                value in self.dear
                and (
                    len(sites) > 1
                    or any(site.block is not operation.block for site in sites)
                    or self._overtaken(value, sites)
                )
            )
        ):
            self.plan.kept.add(value)

    def _spread(self, operation: Operation) -> None:
        """A dear operand that a broadcast would evaluate many times over."""
        source = operation.operands[0]
        while source.operation and source.operation.name in ("tt.expand_dims", "tt.broadcast"):
            source = source.operation.operands[0]
        if source in self.dear and source.type.size > 1:
            self.plan.kept.add(source)

    def _overtaken(self, value: Value, sites: set[Operation]) -> bool:
        """Whether memory that the value loads may be written before the last place that needs it."""
        loads = contains_load(value, self.plan.kept)
        if not loads or not sites:
            return False
        first, last = self.order[value.operation], max(self.order[site] for site in sites)
        if any(first < writer < last for writer in self.writers):
            return True
        stores = [site for site in sites if site.name in WRITES and site.operands]
        return any(_may_overlap(load, store) for load in loads for store in stores)


def _may_overlap(load: Operation, store: Operation) -> bool:
    """Whether a store may write what a load fused into it reads later: same array, other elements."""
    source, target = load.operands[0], store.operands[0]
    return source is not target and bool(_bases(source) & _bases(target))


def _bases(value: Value) -> set[Value]:
    """Arguments of the kernel, and values made of nothing, that a pointer may come from."""
    found, seen, waiting = set(), {value}, [value]
    while waiting:
        part = waiting.pop()
        operands = part.operation.operands if part.operation else []
        if not operands:
            found.add(part)
        pointers = [operand for operand in operands if operand.type.element == POINTER]
        new = [operand for operand in pointers or operands if operand not in seen]
        seen.update(new)
        waiting += new
    return found
