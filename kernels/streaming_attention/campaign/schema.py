"""The config's schema at work: the first thing wrong with a document, in words, and the defaults of the rest."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from streaming_attention.campaign.document import ConfigError, Document, Keys, show, suggestion


@functools.cache
def read_schema(path: Path) -> dict:
    """The schema in a JSON file, read once.

    Raises
    ------
    ConfigError
        It isn't there, as in an installed package without the workflow around it.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); allowed: the schema of a checkout") from error


def check(document: Document, schema: dict) -> None:
    """Raise the first error of a document, first by line.

    Raises
    ------
    ConfigError
    """
    problems = [
        problem
        for error in _validator_class()(schema).iter_errors(document.data)
        for problem in _explain(error, document, schema)
    ]
    if problems:
        keys, problem, allowed = min(problems, key=lambda found: (document.line(found[0]), len(found[0])))
        raise document.error(keys, problem, allowed)


def with_defaults(value, schema: dict, root: dict):
    """A copy of a valid value in which every missing key has its default, at every depth."""
    schema = _branch(value, schema, root)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        absent = {key: part["default"] for key, part in properties.items() if "default" in part and key not in value}
        parts = {key: properties.get(key, schema.get("additionalProperties") or {}) for key in {**value, **absent}}
        return {key: with_defaults({**value, **absent}[key], part, root) for key, part in parts.items()}
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {}), root) for item in value]
    return copy.deepcopy(value)


def _branch(value, schema: dict, root: dict) -> dict:
    """The schema behind references, and of alternatives the one whose type the value has."""
    schema = _resolve(schema, root)
    fitting = [part for part in schema.get("anyOf", ()) if _validator_class()(_embed(part, root)).is_valid(value)]
    return _branch(value, fitting[0], root) if fitting else schema


def _resolve(schema: dict, root: dict) -> dict:
    """Follow ``#/$defs/NAME``; words beside the reference win."""
    if not isinstance(schema, Mapping) or "$ref" not in schema:
        return schema
    target = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return _resolve(target, root) | {key: value for key, value in schema.items() if key != "$ref"}


def _embed(schema: dict, root: dict) -> dict:
    return {**schema, "$defs": root["$defs"]}


@functools.cache
def _validator_class():
    """Draft 2020-12 with stricter numbers: 4.0 is no integer, and NaN and infinity are no numbers."""
    import jsonschema

    def is_integer(checker, value) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def is_number(checker, value) -> bool:
        return is_integer(checker, value) or (isinstance(value, float) and math.isfinite(value))

    base = jsonschema.Draft202012Validator
    strict = base.TYPE_CHECKER.redefine("integer", is_integer).redefine("number", is_number)
    return jsonschema.validators.extend(base, type_checker=strict)


def _explain(error, document: Document, root: dict) -> Iterator[tuple[Keys, str, str]]:
    """(position, problem, allowed) of one of jsonschema's errors; several when several keys are concerned."""
    error = _innermost(error)
    keys = tuple(error.absolute_path)
    properties = error.schema.get("properties", {})
    if error.validator == "additionalProperties":
        for key in error.instance.keys() - properties.keys():
            yield (*keys, key), f"is not a known key{suggestion(key, list(properties))}", ", ".join(properties)
    elif error.validator == "required":
        for key in error.schema["required"]:
            if key not in error.instance:
                yield (*keys, key), "is missing", _describe(properties[key], root)
    elif "propertyNames" in error.absolute_schema_path:
        yield (*keys, error.instance), "is not a usable name", _describe(error.schema, root)
    else:
        near = suggestion(error.instance, error.validator_value) if error.validator == "enum" else ""
        yield keys, f"is {show(error.instance)}{near}", _describe(error.schema, root)


def _innermost(error):
    """Of a failed ``anyOf``, the error inside the alternative whose type fits; else the error as it is."""
    for inners in _alternatives(error):
        if not any(_is_other_kind(inner) for inner in inners):
            return _innermost(inners[0])
    return error


def _is_other_kind(error) -> bool:
    """Whether an alternative failed as a whole, being for another type of value, and not in some detail."""
    if error.relative_path:
        return False
    if error.validator == "anyOf":
        return all(any(map(_is_other_kind, inners)) for inners in _alternatives(error))
    return error.validator in ("type", "enum", "const")


def _alternatives(error) -> list[list]:
    """The errors of each alternative of an ``anyOf``."""
    branches: dict[int, list] = {}
    for inner in error.context or ():
        branches.setdefault(inner.relative_schema_path[0], []).append(inner)
    return list(branches.values())


def _describe(schema: dict, root: dict) -> str:
    """What a schema allows, in words: its title, or its values."""
    schema = _resolve(schema, root)
    if "title" in schema:
        return schema["title"]
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " or ".join(_describe(part, root) for part in schema["anyOf"])
    return f"a value of type {schema.get('type', 'any')}"
