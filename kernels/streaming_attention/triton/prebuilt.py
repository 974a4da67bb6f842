"""Shipped kernels: TTIR snapshots that run with NumPy and llvmlite, whether Triton is installed or not.

``python -m streaming_attention.triton.prebuilt`` writes them anew; it needs the Triton release of :data:`MADE_WITH`,
because other releases print (and optimise) TTIR a little differently.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import lzma
from functools import cache
from pathlib import Path

from streaming_attention.triton.cpu.kernel import Kernel, compile_ttir
from streaming_attention.triton.cpu.parser import strip_locations
from streaming_attention.triton.specializations import Specialization, snapshots

MADE_WITH = "3.8.0"
SNAPSHOTS = Path(__file__).parent / "snapshots"
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
    return Kernel(compile_ttir(read(specialization) or _from_source(specialization)))


def read(specialization: Specialization) -> str | None:
    """A snapshot's text; None where there is none."""
    return _archive(specialization.module).get(specialization.name)


@cache
def _archive(module: str) -> dict[str, str]:
    """All snapshots of a module's kernels by name; they differ little, so that together they compress well."""
    path = SNAPSHOTS / f"{module}.json.xz"
    return json.loads(lzma.decompress(path.read_bytes())) if path.exists() else {}


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
    return without_locations(str(backend.make_ttir(module, {})))


def load_function(specialization: Specialization):
    """The ``@triton.jit`` function of a specialization."""
    module = importlib.import_module(f"streaming_attention.triton.kernels.{specialization.module}")
    return getattr(module, specialization.function)


def without_locations(text: str) -> str:
    """TTIR without source locations: a snapshot shouldn't know where it was made."""
    lines = [strip_locations(line)[0] for line in text.splitlines() if not line.startswith("#loc")]
    return "\n".join(lines) + "\n"


def sources_digest() -> str:
    """sha256 over the kernels' sources, which tells whether snapshots are those of the sources here."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def write() -> None:
    """Write all snapshots and their index."""
    SNAPSHOTS.mkdir(exist_ok=True)
    for module in sorted({specialization.module for specialization in snapshots()}):
        texts = {each.name: generate(each) for each in snapshots() if each.module == module}
        _replace(SNAPSHOTS / f"{module}.json.xz", lzma.compress(json.dumps(texts).encode(), preset=9))
    index = {"triton": MADE_WITH, "sources": sources_digest()}
    _replace(SNAPSHOTS / "index.json", (json.dumps(index, indent=2) + "\n").encode())


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(data)
    temporary.replace(path)


def index() -> dict:
    """Triton's version and the sources' digest that the snapshots were made with."""
    return json.loads((SNAPSHOTS / "index.json").read_text())


if __name__ == "__main__":
    write()
