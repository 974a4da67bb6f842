"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

SCHEMAS = Path(__file__).parents[3] / "workflow" / "schemas"
"""Folder of the JSON schemas of the config and of a record, beside the workflow that writes them."""


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content, the new content, or no file, never a part.

    The content goes to a temporary file in the same directory, reaches the disk, and is renamed.

    Raises
    ------
    OSError
        When the disk is full or the directory can't be written; nothing of the attempt stays behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: str | os.PathLike, value) -> None:
    """Write JSON atomically, indented; NaN and infinity are refused since JSON has no word for them."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sha256_of(path: str | os.PathLike) -> str:
    """Digest of a file's bytes as ``sha256:<hex>``."""
    return "sha256:" + hashlib.sha256(Path(path).read_bytes()).hexdigest()
