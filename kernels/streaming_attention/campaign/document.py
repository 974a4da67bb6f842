"""A config file as data that remembers its lines, so that every complaint can say where.

YAML alone is lenient: of two equal keys the last one wins, and nobody notices. Here they are an error.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

Keys = tuple[str | int, ...]
"""Where a value sits: names of mappings and positions in lists, from the top."""


class ConfigError(ValueError):
    """What is wrong with a config, in one line: file, line, key, value and what is allowed."""


@dataclass(frozen=True)
class Document:
    """The content of a config file.

    Parameters
    ----------
    path : str
        As the user gave it.
    data : dict
        The values, overrides included.
    lines : dict
        Line number, from 1, by position; 0 for what the command line has given.
    """

    path: str
    data: dict
    lines: Mapping[Keys, int]

    def error(self, keys: Keys, problem: str, allowed: str) -> ConfigError:
        """The error to raise about the value at ``keys``: ``FILE, line N: KEYS PROBLEM; allowed: ALLOWED``."""
        return ConfigError(f"{self._place(keys)}: {key_path(keys)} {problem}; allowed: {allowed}")

    def value_error(self, keys: Keys, value, allowed: str) -> ConfigError:
        """The error about a value that is not allowed."""
        return self.error(keys, f"is {show(value)}", allowed)

    def choice_error(self, keys: Keys, value, allowed: Iterable[str]) -> ConfigError:
        """The error about a value that is none of some names, with the nearest of them."""
        names = list(allowed)
        return self.error(keys, f"is {show(value)}{suggestion(value, names)}", ", ".join(names))

    def line(self, keys: Keys) -> int:
        """Line of a value, or of the nearest thing around it that has one."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def _place(self, keys: Keys) -> str:
        line = self.line(keys)
        return f"{self.path}, line {line}" if line else f"{self.path} with what the command line sets"


def read_document(path: str | Path, overrides: Mapping | None = None) -> Document:
    """Read a YAML file and lay overrides over it.

    Parameters
    ----------
    path : path
    overrides : mapping, optional
        Merged into the file's mappings key by key, at every depth; any other value replaces the file's.

    Raises
    ------
    ConfigError
        The file can't be read, is not YAML, repeats a key, has a key that is not text, or is no mapping.
    """
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{name}: can't be read ({reason}); allowed: a YAML file") from error
    data, lines = _Parser(name).parse(text)
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: is {show(data)} as a whole; allowed: a mapping of keys to values")
    for key, value in (overrides or {}).items():
        _lay_over(data, lines, (), key, value)
    return Document(name, data, lines)


def key_path(keys: Keys) -> str:
    """``sweeps.threads.keys[2]``; names with other characters than usual are quoted."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{_word(key)}" for key in keys]
    return "".join(parts).removeprefix(".") or "the file"


def show(value) -> str:
    """A value as JSON on one line, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def suggestion(value, allowed: Sequence[str]) -> str:
    """`` (did you mean keys?)`` where something allowed is near, or nothing."""
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _word(key: str) -> str:
    return key if re.fullmatch(r"[\w-]+", key) else show(key)


def _lay_over(data: dict, lines: dict[Keys, int], above: Keys, key, value) -> None:
    keys = (*above, str(key))
    if isinstance(value, Mapping) and isinstance(data.get(key), dict):
        for name, inner in value.items():
            _lay_over(data[key], lines, keys, name, inner)
        return
    for stale in [found for found in lines if found[: len(keys)] == keys]:
        del lines[stale]
    data[str(key)] = copy.deepcopy(value)
    lines[keys] = 0


class _Parser:
    """Turns YAML's nodes into plain values while it notes their lines."""

    def __init__(self, name: str):
        self.name = name
        self.lines: dict[Keys, int] = {}

    def parse(self, text: str):
        loader = None
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            return (None if node is None else self._build(loader, node, (), ())), self.lines
        except yaml.MarkedYAMLError as error:
            raise self._not_yaml(error.problem_mark or error.context_mark, error.problem or error.context) from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{self.name}: is not YAML ({_one_line(error)}); allowed: a YAML file") from error
        finally:
            if loader:
                loader.dispose()

    def _build(self, loader, node, keys: Keys, parents: tuple):
        self.lines[keys] = node.start_mark.line + 1
        if any(node is parent for parent in parents):
            raise self._not_yaml(node.start_mark, "an alias stands inside of what it names")
        if isinstance(node, yaml.SequenceNode):
            return [
                self._build(loader, item, (*keys, position), (*parents, node))
                for position, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(loader, node, keys, (*parents, node))
        try:
            return loader.construct_object(node)
        except ValueError as error:  # a date such as 2026-13-45
            raise self._not_yaml(node.start_mark, _one_line(error)) from error

    def _build_mapping(self, loader, node, keys: Keys, parents: tuple) -> dict:
        self._refuse_repeated(node, keys)
        loader.flatten_mapping(node)
        values = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                written = getattr(key_node, "value", key)
                shown = written if isinstance(written, str) else "a list or mapping"
                where = self._place(key_node.start_mark)
                raise ConfigError(f"{where}: {key_path(keys)} has the key {shown}; allowed: text (quote it)")
            values[key] = self._build(loader, value_node, (*keys, key), parents)
            self.lines[(*keys, key)] = key_node.start_mark.line + 1
        return values

    def _refuse_repeated(self, node, keys: Keys) -> None:
        """Before merges (``<<``) are flattened: a key may replace a merged one, not another of its own mapping."""
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in first_lines:
                where, path = self._place(key_node.start_mark), key_path((*keys, key_node.value))
                first = first_lines[key_node.value]
                raise ConfigError(f"{where}: {path} is given twice, first in line {first}; allowed: once")
            first_lines[key_node.value] = key_node.start_mark.line + 1

    def _not_yaml(self, mark, problem: str) -> ConfigError:
        return ConfigError(f"{self._place(mark)}: is not YAML ({problem}); allowed: a YAML mapping")

    def _place(self, mark) -> str:
        return f"{self.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else self.name


def _one_line(error) -> str:
    return " ".join(str(error).split())
