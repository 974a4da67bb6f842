"""Which files of this package a module is made of: the sources that decide what a kernel does.

Imports are read from the syntax tree, not followed at run time, so that a workflow can ask without importing Numba.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent
PACKAGE = __package__


def sources_of(modules: Iterable[str]) -> tuple[Path, ...]:
    """Files of the given modules and of every module of this package that they import, directly or not.

    Parameters
    ----------
    modules : iterable of str
        Full names, such as ``"streaming_attention.streaming.loops"``.

    Returns
    -------
    tuple of Path
        Sorted and without repetition.

    Raises
    ------
    ModuleNotFoundError
        A name that is no module of this package.
    """
    found: set[Path] = set()
    pending = [_require(name) for name in modules]
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending += _imports(path, path.stat().st_mtime_ns)
    return tuple(sorted(found))


def digest_of(paths: Iterable[Path]) -> str:
    """sha256 over names (relative to the package) and contents, in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(_line(path, path.stat().st_mtime_ns))
    return total.hexdigest()


def _require(name: str) -> Path:
    path = _file_of(name)
    if path is None:
        raise ModuleNotFoundError(f"{name!r} is no module of {PACKAGE}")
    return path


def _file_of(name: str) -> Path | None:
    """File of a module of this package; None for the package itself and for everything else."""
    head, _, rest = name.partition(".")
    if head != PACKAGE or not rest:
        return None
    stem = ROOT.joinpath(*rest.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


# A workflow asks for every method and figure each time it is read, and so do all of its jobs: what a file imports
# and holds is found once.


@functools.cache
def _line(path: Path, modified: int) -> bytes:
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{path.relative_to(ROOT).as_posix()} {content}\n".encode()


@functools.cache
def _imports(path: Path, modified: int) -> tuple[Path, ...]:
    """Files of this package that a file imports: ``from a import b`` can mean the module a or the module a.b."""
    names = []
    for node in _statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(filter(None, map(_file_of, dict.fromkeys(names))))


def _statements(body: list) -> Iterator[ast.AST]:
    """All statements, those inside of others too; expressions import nothing."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(node, part, []))
