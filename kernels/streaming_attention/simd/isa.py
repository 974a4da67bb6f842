"""Instruction sets: how many lanes and registers a kernel may use, chosen at run time and forced in tests.

An :class:`Isa` is a value that kernels receive as their first argument. Its Numba type carries the lanes, so Numba
compiles (and caches) one version of a kernel per instruction set. The type's name also carries a digest of the
package's kernel sources: an intrinsic that changes in one file invalidates the cached kernels of every other
file, which Numba's own cache (keyed by the file of the function alone) would not notice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numba.core.config
from llvmlite import ir
from numba.core import types
from numba.core.imputils import lower_constant
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox


@dataclass(frozen=True)
class Isa:
    """One way to hold vectors in registers.

    Parameters
    ----------
    name : str
        The name by which it is forced.
    lanes : int
        fp32 elements of a vector.
    rows : int
        Rows of a register tile; see :mod:`.tile`. With ``vectors`` columns it takes
        ``rows * vectors + vectors + 1`` registers.
    vectors : int
        Vectors side by side in a register tile; ``width = lanes * vectors`` queries make a strip.
    requires : tuple of str
        LLVM feature names that the CPU must have.
    """

    name: str
    lanes: int
    rows: int
    vectors: int
    requires: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def width(self) -> int:
        """Lanes of a strip: queries that a kernel takes side by side."""
        return self.lanes * self.vectors

    @property
    def has_bf16_dot(self) -> bool:
        """Whether tiles may multiply pairs of bfloat16; see :mod:`.bf16`."""
        return "avx512bf16" in self.requires

    def missing(self) -> list[str]:
        """Features that this CPU lacks; empty where the ISA can run."""
        return [feature for feature in self.requires if not host_features().get(feature, False)]


# Registers: 8 * 3 + 3 + 1 = 28 of 32; 4 * 3 + 3 + 1 = 16 of 16. Rows divide the usual head sizes, so that no
# tile of O is narrower than the others (6 x 4 leaves 2 of 128).
AVX512 = Isa("avx512", 16, 8, 3, ("avx512f", "avx512bw", "avx512dq", "avx512vl"))
AVX512_BF16 = Isa("avx512_bf16", 16, 8, 3, (*AVX512.requires, "avx512bf16"))
AVX2 = Isa("avx2", 8, 4, 3, ("avx2", "fma"))
PORTABLE = Isa("portable", 4, 4, 3)

ISAS = {isa.name: isa for isa in (AVX512_BF16, AVX512, AVX2, PORTABLE)}
"""Every ISA by name, the best first."""


@cache
def host_features() -> dict[str, bool]:
    """LLVM feature -> present, as Numba will compile for (``NUMBA_CPU_FEATURES`` is obeyed)."""
    override = numba.core.config.CPU_FEATURES
    if override:
        return {flag[1:]: flag[0] == "+" for flag in override.split(",") if flag}
    return dict(llvm.get_host_cpu_features())


def select_isa(name: str | None = None) -> Isa:
    """The best ISA of this CPU, or the one asked for.

    Raises
    ------
    ValueError
        If `name` is unknown, or needs features that this CPU lacks.
    """
    if name is None:
        return _best()
    if name not in ISAS:
        raise ValueError(f"isa: {name!r} is not known; allowed: {', '.join(ISAS)}")
    if missing := ISAS[name].missing():
        raise ValueError(f"isa: {name!r} needs {', '.join(missing)}, which this CPU lacks")
    return ISAS[name]


def choose_isa(all_bf16: bool, isa: Isa | None = None) -> Isa:
    """The one given, else the best of this CPU, with dots of bfloat16 where all operands hold it."""
    return isa or (AVX512_BF16 if all_bf16 and not AVX512_BF16.missing() else select_isa())


@cache
def _best() -> Isa:
    return next(isa for isa in (AVX512, AVX2, PORTABLE) if not isa.missing())


@cache
def sources_digest() -> str:
    """Digest over every file that jitted code may come from."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted([*package.glob("simd/*.py"), *package.glob("streaming/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class IsaType(types.Opaque):
    """Numba type of an :class:`Isa`: no data, everything is in the type."""

    def __init__(self, isa: Isa, digest: str):
        self.isa = isa
        super().__init__(name=f"Isa({isa.name}, {digest})")

    @property
    def vector(self) -> ir.VectorType:
        """LLVM type of one fp32 vector."""
        return ir.VectorType(ir.FloatType(), self.isa.lanes)


register_model(IsaType)(models.OpaqueModel)


@typeof_impl.register(Isa)
def _typeof(isa, _context):
    return IsaType(isa, sources_digest())


@lower_constant(IsaType)
def _constant(context, builder, typ, _value):
    return context.get_dummy_value()


@unbox(IsaType)
def _unbox(_typ, _value, c):
    return NativeValue(c.context.get_dummy_value())


@intrinsic
def lanes(typingctx, isa):
    """fp32 lanes of a vector."""
    return _constant_of(isa, isa.isa.lanes)


@intrinsic
def width(typingctx, isa):
    """Lanes of a strip."""
    return _constant_of(isa, isa.isa.width)


@intrinsic
def tile_rows(typingctx, isa):
    """Rows of a register tile."""
    return _constant_of(isa, isa.isa.rows)


def _constant_of(isa, value: int):
    return types.int64(isa), lambda _context, _builder, _signature, _args: ir.IntType(64)(value)
