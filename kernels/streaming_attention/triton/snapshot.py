"""Make the snapshots that are shipped: ``python -m streaming_attention.triton.snapshot``.

Needs the Triton release of :data:`MADE_WITH`, because others print (and optimise) TTIR a little differently.
"""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path

from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget

from streaming_attention.triton.cpu.target import make_target
from streaming_attention.triton.cpu.text import strip_locations
from streaming_attention.triton.gpu import source_of
from streaming_attention.triton.plugin import NAME
from streaming_attention.triton.plugin.compiler import Compiler
from streaming_attention.triton.prebuilt import SNAPSHOTS, sources_digest
from streaming_attention.triton.specializations import Specialization, snapshots

MADE_WITH = "3.8.0"


def generate(specialization: Specialization) -> str:
    """TTIR of a kernel from its source."""
    backend = Compiler(GPUTarget(NAME, make_target().name, 1))
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    module = source_of(specialization).make_ir(
        backend.target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    return without_locations(str(backend.make_ttir(module, {})))


def without_locations(text: str) -> str:
    """TTIR without source locations: a snapshot shouldn't know where it was made."""
    lines = [strip_locations(line)[0] for line in text.splitlines() if not line.startswith("#loc")]
    return "\n".join(lines) + "\n"


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
    os.replace(temporary, path)


if __name__ == "__main__":
    write()
