"""Which processor this is and which vector instructions it has, as Linux tells in ``/proc/cpuinfo``.

Where the file is missing (macOS, Windows) there are no flags, and the name is what Python knows of the platform.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

_X86 = ("sse", "ssse", "avx", "fma", "f16c", "amx")
_ARM = ("asimd", "fphp", "bf16", "i8mm", "sve", "sme")


def flags(root: str | os.PathLike = "/") -> frozenset[str]:
    """Vector extensions by the kernel's names, such as ``avx2`` or ``asimd``; the processor's other flags left out.

    Parameters
    ----------
    root : path
        Where ``proc`` is.
    """
    fields = _first_processor(Path(root))
    found = {name for name in fields.get("flags", "").split() if name.startswith(_X86)}
    return frozenset(found | {name for name in fields.get("Features", "").split() if name.startswith(_ARM)})


def cpu_name(root: str | os.PathLike = "/") -> str:
    """The model's name; on ARM, whose file has none, implementer and part as numbers.

    Parameters
    ----------
    root : path
        Where ``proc`` is.
    """
    fields = _first_processor(Path(root))
    if "model name" in fields:
        return fields["model name"]
    if "CPU part" in fields:
        return f"implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    return platform.processor() or platform.machine() or "unknown"


def _first_processor(root: Path) -> dict[str, str]:
    """The fields of the first processor; empty where the file can't be read."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
