"""Pieces of a line of MLIR's text: types, lists, brackets, attributes, locations."""

from __future__ import annotations

import re

from streaming_attention.triton.cpu.ir import POINTER, Type

CLOSING = {"<": ">", "(": ")", "{": "}", "[": "]"}


def parse_type(text: str) -> Type:
    """``tensor<128x64x!tt.ptr<f16>>`` and the like."""
    text = text.strip()
    if text.startswith("tensor<"):
        extents = re.match(r"tensor<((?:\d+x)+)", text)
        shape = tuple(int(extent) for extent in extents[1].split("x")[:-1])
        element = parse_type(text[extents.end() : -1].partition(", ")[0])
        return Type(element.element, shape, element.pointee)
    if text.startswith("!tt.ptr<"):
        return Type(POINTER, (), text[len("!tt.ptr<") : -1].partition(",")[0])
    return Type("i64" if text == "index" else text)


def split_list(text: str) -> list[str]:
    """Split at the commas that no bracket encloses."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        if char in "<({[":
            depth += 1
        elif char in ">)}]" and text[place - 1 : place + 1] != "->":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def balanced(text: str, start: int) -> int:
    """Index after the bracket that closes the one at ``start``."""
    depth, opening = 0, text[start]
    for place in range(start, len(text)):
        if text[place] == opening:
            depth += 1
        elif text[place] == CLOSING[opening]:
            depth -= 1
            if depth == 0:
                return place + 1
    raise ValueError(f"unbalanced {opening} in {text!r}")


def strip_locations(line: str) -> tuple[str, str | None]:
    """The line without its ``loc(...)``, and the last one's content."""
    last = None
    while (start := line.rfind("loc(")) >= 0:
        end = balanced(line, start + 3)
        last = last or line[start + 4 : end - 1]
        line = line[:start].rstrip() + line[end:]
    return line.rstrip(), last


def attributes_of(line: str) -> tuple[str, dict[str, str]]:
    """The line without its attribute dictionaries, and what they hold."""
    found = {}
    while (start := line.find("{")) >= 0:
        end = balanced(line, start)
        for entry in split_list(line[start + 1 : end - 1]):
            key, _, value = entry.partition("=")
            found[key.strip()] = value.strip()
        line = line[:start].rstrip("< ") + line[end:].lstrip(">")
    return line, found


def take_string(line: str) -> tuple[str, dict[str, str]]:
    """The line without its string literal, and that as the attribute ``message``, its escapes (``\\0A``) undone."""
    before, _, rest = line.partition('"')
    text, _, after = rest.partition('"')
    text = re.sub(r"\\([0-9A-Fa-f]{2}|\\)", lambda found: _unescape(found[1]), text)
    return f"{before.rstrip(', ')} {after.lstrip()}", {"message": text}


def _unescape(code: str) -> str:
    return code if code == "\\" else chr(int(code, 16))


def signature_of(text: str) -> tuple[list[Type], list[Type] | None]:
    """Types before and after ``->`` (or ``to``); the latter None when absent."""
    before, arrow, after = text.partition(" -> ")
    if not arrow:
        before, arrow, after = text.partition(" to ")
    inputs = [parse_type(item) for item in split_list(before.strip().strip("()").replace(" * ", ", "))]
    return inputs, [parse_type(item) for item in split_list(after.strip().strip("()"))] if arrow else None
