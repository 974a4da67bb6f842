"""TTIR text, as MLIR prints it, to :mod:`ir`.

MLIR prints one operation a line, and a region's braces end and begin lines, so a line is the unit here. Locations
are aliases at the module's ends (``#loc7 = loc("file":12:5)``), possibly through call sites.
"""

from __future__ import annotations

import re

from streaming_attention.triton.cpu.ir import Block, Function, Operation, Type, UnsupportedOperation, Value
from streaming_attention.triton.cpu.text import (
    attributes_of,
    balanced,
    parse_type,
    signature_of,
    split_list,
    strip_locations,
    take_string,
)

VALUE = re.compile(r"%[\w$.#-]+")
ALIAS = re.compile(r"^(#loc\d*) = loc\((.*)\)$")
OPERATION = re.compile(r'^(?:(%.+?) = )?"?([a-z_]+\.[\w.]+)"?(.*)$')
FILE_LINE = re.compile(r'"([^"]*)":(\d+):\d+')


def parse(text: str) -> Function:
    """The kernel of a TTIR module.

    Raises
    ------
    UnsupportedOperation
        A line that can't be read.
    """
    return _Parser(text).kernel()


class _Parser:
    def __init__(self, text: str):
        self.lines = [line.strip() for line in text.splitlines() if line.strip()]
        self.aliases = {match[1]: match[2] for match in map(ALIAS.match, self.lines) if match}
        self.values: dict[str, Value] = {}
        self.place = self.calls = 0

    def kernel(self) -> Function:
        start = next(place for place, line in enumerate(self.lines) if line.startswith("tt.func public "))
        name, inside = self._header(start)
        self.place = start + 1
        arguments = self._arguments(inside)
        blocks = self._region(None)
        blocks[0].arguments = arguments
        return Function(name, arguments, blocks)

    def _header(self, start: int) -> tuple[str, str]:
        """A function's name and the text of its arguments."""
        header, _ = strip_locations(self.lines[start])
        opening = header.index("(")
        return re.search(r"@\"?([^\"(]+)", header)[1], header[opening + 1 : balanced(header, opening) - 1]

    def _call(self, operation: Operation, rest: str) -> None:
        """``@name(%a, %b) : (types) -> types``: the body of the function called becomes the operation's region.

        Triton's inliner leaves a call where the body has several blocks and stands in a branch or loop.
        """
        head, _, types = rest.partition(" : ")
        name = re.search(r"@\"?([^\"(]+)", head)[1]
        arguments = [self.values[value] for value in VALUE.findall(head[head.index("(") :])]
        self._types(operation, types)
        starts = (place for place, line in enumerate(self.lines) if line.startswith("tt.func private "))
        start = next(place for place in starts if self._header(place)[0] == name)
        names = [entry.partition(":")[0].strip() for entry in split_list(attributes_of(self._header(start)[1])[0])]
        values, place = self.values, self.place
        self.values, self.place = dict(zip(names, arguments, strict=True)), start + 1
        operation.regions.append(self._called(self._region(operation), operation))
        self.values, self.place = values, place

    def _called(self, blocks: list[Block], operation: Operation) -> list[Block]:
        """Blocks of a function called: labels of their own; returns branch to a last block, which takes results."""
        self.calls += 1
        end = Block("end", parent=operation)
        end.arguments = [Value("", kind, end, index) for index, kind in enumerate(operation.result_types)]
        for block in blocks:
            last = block.terminator
            if last.name == "tt.return":
                last.name, last.successors, last.operands = "cf.br", [(end.label, last.operands)], []
            last.successors = [(f"{label}.{self.calls}", values) for label, values in last.successors]
        for block in (*blocks, end):
            block.label = f"{block.label}.{self.calls}"
        return [*blocks, end]

    def _arguments(self, text: str, owner: Block | None = None) -> list[Value]:
        arguments = []
        for index, entry in enumerate(split_list(attributes_of(text)[0])):
            name, _, kind = entry.partition(":")
            value = Value(name.strip(), parse_type(kind), owner, index)
            self.values[value.name] = value
            arguments.append(value)
        return arguments

    def _region(self, parent: Operation | None) -> list[Block]:
        """Blocks up to the line that begins with a closing brace (left in place)."""
        blocks = [Block("entry", parent=parent)]
        while not self.lines[self.place].startswith("}"):
            line, location = strip_locations(self.lines[self.place])
            if line.startswith("^"):
                self._label(line, blocks, parent)
            else:
                operation = self._operation(line, location)
                operation.block = blocks[-1]
                blocks[-1].operations.append(operation)
        return blocks

    def _label(self, line: str, blocks: list[Block], parent: Operation | None) -> None:
        self.place += 1
        label = re.match(r"\^(\w+)", line)[1]
        if blocks[-1].operations:
            blocks.append(Block(label, parent=parent))
        else:
            blocks[-1].label = label
        if "(" in line:
            opening = line.index("(")
            arguments = self._arguments(line[opening + 1 : balanced(line, opening) - 1], blocks[-1])
            blocks[-1].arguments = arguments

    def _operation(self, line: str, location: str | None) -> Operation:
        match = OPERATION.match(line)
        if match is None:
            raise UnsupportedOperation(f"can't read {line!r} in TTIR")
        names, name, rest = match[1] or "", match[2], match[3]
        operation = Operation(name, [], [])
        self.place += 1
        has_regions = rest.endswith("{")
        if has_regions:
            rest = rest[:-1].rstrip("( ")
        rest, message = take_string(rest) if name in _WITH_MESSAGE else (rest, {})
        inline = _ATTRIBUTE_TEXT.get(name)
        rest, operation.attributes = (rest, inline(rest)) if inline else attributes_of(rest)
        if message:
            operation.attributes.update(message)
            rest = rest.strip().removeprefix(": ")
        if name in _WITH_OWN_SYNTAX:
            _WITH_OWN_SYNTAX[name](self, operation, rest)
        elif name in ("cf.br", "cf.cond_br"):
            self._branch(operation, rest)
        else:
            self._plain(operation, rest)
        if has_regions:
            location = self._regions(operation) or location
        operation.line = self._source_line(location)
        self._name_results(operation, names)
        for operand in operation.operands:
            operand.users.append(operation)
        for _, arguments in operation.successors:
            for operand in arguments:
                operand.users.append(operation)
        return operation

    def _regions(self, operation: Operation) -> str | None:
        """Read the regions that begin here; returns the location behind the last brace."""
        while True:
            region = self._region(operation)
            last = region[-1].operations[-1:]
            if operation.name.startswith("scf.") and not (last and last[0].name in ("scf.yield", "scf.condition")):
                region[-1].operations.append(Operation("scf.yield", [], [], block=region[-1]))  # MLIR leaves it out
            operation.regions.append(region)
            line, location = strip_locations(self.lines[self.place])
            self.place += 1
            if line.endswith("{"):
                continue
            rest, attributes = attributes_of(line[1:])
            if " : " in rest:  # the generic form keeps its types behind its regions
                self._types(operation, rest.partition(" : ")[2])
            operation.attributes = {**attributes, **operation.attributes}
            return location

    def _plain(self, operation: Operation, rest: str) -> None:
        head, _, types = rest.partition(" : ")
        operation.operands = [self.values[name] for name in VALUE.findall(head)]
        bare = VALUE.sub(" ", re.sub(r"\w+<[^>]*>", " ", head))
        operation.words = tuple(re.findall(r"[\w.-]+", bare))
        self._types(operation, types)

    def _types(self, operation: Operation, text: str) -> None:
        operation.result_types = _result_types(operation, *signature_of(text))

    def _branch(self, operation: Operation, rest: str) -> None:
        head = rest.partition("^")[0]
        operation.operands = [self.values[name] for name in VALUE.findall(head)]
        for label, arguments in re.findall(r"\^(\w+)(?:\(([^)]*)\))?", rest):
            names = VALUE.findall(arguments.partition(" : ")[0])
            operation.successors.append((label, [self.values[name] for name in names]))

    def _for(self, operation: Operation, rest: str) -> None:
        """``%i = %a to %b step %c iter_args(%x = %x0, ...) -> (types) : i32``."""
        head, _, carried = rest.partition(" iter_args(")
        induction, *bounds = VALUE.findall(head)
        kind = re.search(r" : (\w+)$", rest)
        entries = carried[: carried.index(") -> ")] if carried else ""
        pairs = re.findall(r"(%[\w$.#-]+) = (%[\w$.#-]+)", entries)
        operation.operands = [self.values[name] for name in (*bounds, *(init for _, init in pairs))]
        operation.result_types = [self.values[init].type for _, init in pairs]
        names = [induction, *(name for name, _ in pairs)]
        types = [Type(kind[1] if kind and kind[1] != "index" else "i64"), *operation.result_types]
        self._enter(operation, names, types)

    def _dot_scaled(self, operation: Operation, rest: str) -> None:
        """``%a scale %s, %b scale %t, %c lhs = e2m1 rhs = e4m3 : types``, either scale left out where there is none."""
        head, _, types = rest.partition(" : ")
        sides = [VALUE.findall(part) for part in head.split(",")]
        operands, scales = [names[0] for names in sides], [name for names in sides for name in names[1:]]
        operation.operands = [self.values[name] for name in (*operands, *scales)]
        for place, side in enumerate(("lhs", "rhs")):
            operation.attributes[side] = re.search(rf"{side} = (\w+)", head)[1]
            operation.attributes[f"{side}_scaled"] = "true" if len(sides[place]) > 1 else "false"
        self._types(operation, types)

    def _while(self, operation: Operation, rest: str) -> None:
        pairs = re.findall(r"(%[\w$.#-]+) = (%[\w$.#-]+)", rest.partition(" : ")[0])
        operation.operands = [self.values[init] for _, init in pairs]
        self._types(operation, rest.partition(" : ")[2])
        self._enter(operation, [name for name, _ in pairs], [value.type for value in operation.operands])

    def _if(self, operation: Operation, rest: str) -> None:
        head, _, types = rest.partition(" -> ")
        operation.operands = [self.values[name] for name in VALUE.findall(head)]
        operation.result_types = [parse_type(item) for item in split_list(types.strip().strip("()"))]

    def _enter(self, operation: Operation, names: list[str], types: list[Type]) -> None:
        """Arguments that the operation's line, not its block, names."""
        operation.entry_arguments = [
            Value(name, kind, None, index) for index, (name, kind) in enumerate(zip(names, types, strict=True))
        ]
        self.values.update({value.name: value for value in operation.entry_arguments})

    def _name_results(self, operation: Operation, names: str) -> None:
        for index, kind in enumerate(operation.result_types):
            operation.results.append(Value("", kind, operation, index))
        place = 0
        for entry in split_list(names):
            name, _, count = entry.partition(":")
            for index in range(int(count or 1)):
                value = operation.results[place]
                value.name = f"{name}#{index}" if count else name
                self.values[value.name] = value
                place += 1
        if operation.entry_arguments:
            block = operation.regions[0][0]
            block.arguments = operation.entry_arguments
            for argument in block.arguments:
                argument.owner = block

    def _source_line(self, location: str | None) -> str:
        """``file:line`` of a location, the caller's where it was inlined."""
        for _ in range(20):
            if location is None:
                break
            found = FILE_LINE.findall(location)
            if found and "callsite" not in location:
                return f"{found[-1][0]}:{found[-1][1]}"
            names = re.findall(r"#loc\d*", location)
            if not names:
                break
            location = self.aliases.get(names[-1])
        return "unknown source line"


def _result_types(operation: Operation, inputs: list[Type], outputs: list[Type] | None) -> list[Type]:
    name = operation.name
    if name in _NO_RESULT or not (inputs or outputs):
        return [Type("i1")] if name == "arith.constant" else []
    if outputs is not None:
        return outputs * 2 if name == "tt.split" else outputs
    if name in ("arith.cmpi", "arith.cmpf"):
        return [inputs[0].with_element("i1")]
    if name == "tt.load":
        return [inputs[0].pointed()]
    if name in ("arith.mului_extended", "arith.mulsi_extended"):
        return [inputs[0]] * 2
    if name == "arith.addui_extended":
        return [inputs[0], inputs[-1]]
    return [inputs[-1] if name == "arith.select" else inputs[0]]


def _constant_text(rest: str) -> dict[str, str]:
    return {"value": rest.partition(" : ")[0].strip()}


_NO_RESULT = {"tt.store", "tt.return", "scf.yield", "scf.condition", "tt.reduce.return", "tt.scan.return", "tt.print",
              "tt.assert", "tt.map_elementwise.return", "llvm.intr.assume"}  # fmt: skip
_WITH_MESSAGE = {"tt.print", "tt.assert"}
_ATTRIBUTE_TEXT = {"arith.constant": _constant_text}
_WITH_OWN_SYNTAX = {"scf.for": _Parser._for, "scf.while": _Parser._while, "scf.if": _Parser._if,
                    "tt.dot_scaled": _Parser._dot_scaled, "tt.call": _Parser._call}  # fmt: skip
