"""Records: one JSON file per job, sealed with its own digest, written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path

from streaming_attention.campaign.files import SCHEMAS, write_json

STATUSES = ("passed", "incorrect", "infeasible", "timeout", "error")
"""What can become of a method in a record; only ``passed`` has timings."""


KINDS = ("attention", "ceilings", "gate", "compile", "environment")
"""Kinds of record; each has its definition in ``workflow/schemas/record.schema.json``."""


class RecordError(ValueError):
    """A record that can't be trusted: the message names the file and the reason."""


def digest(record: dict) -> str:
    """``sha256:<hex>`` of the record without its ``digest`` key, as canonical JSON."""
    body = {key: value for key, value in record.items() if key != "digest"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def seal(record: dict) -> dict:
    """The record with its digest; a later change of any value shows."""
    return {**record, "digest": digest(record)}


def write_record(path: str | os.PathLike, record: dict) -> dict:
    """Seal, check and write a record; returns it as written.

    Raises
    ------
    RecordError
        The record breaks the schema, or a method that did not pass carries timings.
    """
    sealed = seal(record)
    _check(sealed, path)
    write_json(path, sealed)
    return sealed


def load_record(path: str | os.PathLike) -> dict:
    """Read a record and refuse one that is truncated, altered or against the schema.

    Raises
    ------
    RecordError
        Naming the file and what is wrong with it.
    """
    try:
        record = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable record ({error})") from error
    _check(record, path)
    if record["digest"] != digest(record):
        raise RecordError(f"{path}: digest {record['digest']} does not match the content ({digest(record)})")
    return record


def _check(record, path) -> None:
    errors = sorted(_validator(_kind(record, path)).iter_errors(record), key=lambda error: list(map(str, error.path)))
    if errors:
        where = "/".join(map(str, errors[0].path)) or "record"
        raise RecordError(f"{path}: {where}: {errors[0].message}")
    for entry in record.get("methods", ()):
        _check_timings(entry, path)


def _kind(record, path) -> str:
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind not in KINDS:
        raise RecordError(f"{path}: kind: {kind!r} is not one of {', '.join(KINDS)}")
    return kind


def _check_timings(entry: dict, path) -> None:
    lengths = {key: len(entry[key]) for key in ("samples", "starts", "compute", "communication")}
    if len(set(lengths.values())) != 1:
        raise RecordError(f"{path}: {entry['label']}: lists of unequal length {lengths}")
    if entry["status"] == "passed" and not entry["samples"]:
        raise RecordError(f"{path}: {entry['label']}: passed without a sample")
    if entry["status"] != "passed" and (entry["samples"] or not entry["reason"]):
        raise RecordError(f"{path}: {entry['label']}: status {entry['status']} needs a reason and no samples")


@functools.cache
def _validator(kind: str):
    import jsonschema

    schema = json.loads((SCHEMAS / "record.schema.json").read_text())
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": schema["$defs"]})
