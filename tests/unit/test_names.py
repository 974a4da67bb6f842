"""Every name that a module of the package imports from another one is there, modules of optional packages included."""

import ast
from functools import cache
from pathlib import Path

import streaming_attention

ROOT = Path(streaming_attention.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def file_of(module: str) -> Path:
    """File of a module or package of ours by its dotted name."""
    place = ROOT.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def names_in(path: Path) -> set[str]:
    """Names that a module has, modules of a package among them."""
    names = {child.stem for child in path.parent.iterdir()} if path.name == "__init__.py" else set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def imports_of(path: Path):
    """(module, name) of every ``from streaming_attention... import name`` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "streaming_attention":
            yield from ((node.module, alias.name) for alias in node.names)


def test_imported_names_exist():
    missing = [
        f"{path.relative_to(ROOT)}: {module} has no {name}"
        for path in MODULES
        for module, name in imports_of(path)
        if not {name, "__getattr__"} & names_in(file_of(module))
    ]
    assert MODULES and not missing, "\n".join(missing)
