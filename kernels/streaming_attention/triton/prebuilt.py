"""Shipped kernels: TTIR snapshots that run with NumPy and llvmlite, whether Triton is installed or not.

``python -m streaming_attention.triton.prebuilt`` writes them anew; it needs the Triton release of :data:`MADE_WITH`,
because other releases print (and optimise) TTIR a little differently.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import zipfile
from functools import cache
from pathlib import Path

from streaming_attention.triton.cpu.kernel import Kernel, compile_ttir
from streaming_attention.triton.specializations import Specialization, snapshots

MADE_WITH = "3.8.0"
ARCHIVE = Path(__file__).parent / "snapshots.zip"
SOURCES = Path(__file__).parent / "kernels"


class SnapshotError(RuntimeError):
    """A kernel that isn't shipped, and that can't be made because Triton is not installed."""


@cache
def kernel(specialization: Specialization) -> Kernel:
    """A kernel ready to be called: from its snapshot, else from source through Triton.

    Raises
    ------
    SnapshotError
        Neither is there.
    """
    return Kernel(compile_ttir(read(specialization.name) or _from_source(specialization)))


def read(name: str) -> str | None:
    """A snapshot's text; None where there is none."""
    try:
        with zipfile.ZipFile(ARCHIVE) as archive:
            return archive.read(f"{name}.ttir").decode()
    except (FileNotFoundError, KeyError):
        return None


def _from_source(specialization: Specialization) -> str:
    if importlib.util.find_spec("triton") is None:
        raise SnapshotError(f"{specialization.name} is not shipped and Triton is not installed: pip install .[triton]")
    return generate(specialization)


def generate(specialization: Specialization) -> str:
    """TTIR of a kernel from its source; needs Triton. Locations keep file names only."""
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from streaming_attention.triton.cpu.target import make_target
    from streaming_attention.triton.plugin import NAME
    from streaming_attention.triton.plugin.compiler import Compiler

    backend = Compiler(GPUTarget(NAME, make_target().name, 1))
    options = backend.parse_options({})
    source = ASTSource(
        load_function(specialization), dict(specialization.signature), dict(specialization.constants), {}
    )
    context = ir.context()
    ir.load_dialects(context)
    module = source.make_ir(
        backend.target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    return without_directories(str(backend.make_ttir(module, {})))


def load_function(specialization: Specialization):
    """The ``@triton.jit`` function of a specialization."""
    module = importlib.import_module(f"streaming_attention.triton.kernels.{specialization.module}")
    return getattr(module, specialization.function)


def without_directories(text: str) -> str:
    """Locations as ``"prefill.py":12:3``, so that a snapshot doesn't know where it was made."""
    return re.sub(r'loc\("[^"]*/([^"/]+)"', r'loc("\1"', text)


def sources_digest() -> str:
    """sha256 over the kernels' sources, which tells whether snapshots are those of the sources here."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def write(path: Path = ARCHIVE) -> None:
    """Write all snapshots and their index, byte for byte the same each time."""
    entries = {"index.json": json.dumps({"triton": MADE_WITH, "sources": sources_digest()})}
    entries |= {f"{specialization.name}.ttir": generate(specialization) for specialization in snapshots()}
    temporary = path.with_suffix(".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, text in entries.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    temporary.replace(path)


def index() -> dict:
    """Triton's version and the sources' digest that the snapshots were made with."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return json.loads(archive.read("index.json"))


if __name__ == "__main__":
    write()
