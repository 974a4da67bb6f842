"""Which vector instructions the code is for: lanes, register tiles, and the few instructions LLVM IR can't name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Target:
    """A CPU as the code generator sees it.

    Parameters
    ----------
    name : str
        ``avx512``, ``avx2`` or ``portable``.
    lanes : int
        32-bit elements in a vector register.
    tile : tuple of int
        Rows and vectors of the register tile of a matrix product; rows*vectors accumulators, the vectors of one row
        of B and a broadcast element fit the registers.
    features : frozenset of str
        LLVM's names of what the CPU can do beyond that.
    cpu : str
        LLVM's name of the CPU to schedule for; "" for a generic one.
    """

    name: str
    lanes: int
    tile: tuple[int, int]
    features: frozenset[str] = frozenset()
    cpu: str = ""

    @property
    def registers(self) -> int:
        """Vector registers."""
        return 32 if self.name == "avx512" else 16

    @property
    def has_bf16_dot(self) -> bool:
        return self.name == "avx512" and "avx512bf16" in self.features

    @property
    def feature_string(self) -> str:
        """For LLVM's target machine."""
        return ",".join(f"+{feature}" for feature in sorted(self.features))


TILES = {"avx512": (16, (6, 4)), "avx2": (8, (6, 2)), "portable": (4, (4, 4))}
NEEDS = {"avx512": {"avx512f", "avx512vl", "avx512bw", "avx512dq"}, "avx2": {"avx2", "fma"}, "portable": set()}
BEST = "best"
AVX512_ONLY = ("avx512", "evex512", "vp2intersect")


@cache
def host_features() -> frozenset[str]:
    """LLVM's names of the host's instruction sets."""
    import llvmlite.binding as llvm

    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


@cache
def make_target(name: str = BEST) -> Target:
    """A target by name; ``best`` is the widest that the host has.

    Raises
    ------
    ValueError
        Unknown name, or an instruction set that the host lacks.
    """
    import llvmlite.binding as llvm

    features = host_features()
    usable = [known for known, needs in NEEDS.items() if needs <= features]
    name = usable[0] if name == BEST else name
    if name not in usable:
        raise ValueError(f"isa: {name!r} is not one that this CPU runs; allowed: {', '.join((BEST, *usable))}")
    if name == "portable":
        features = frozenset(feature for feature in features if not feature.startswith(("avx", "fma", "vaes", "vpcl")))
    elif name == "avx2":
        features = frozenset(feature for feature in features if not any(part in feature for part in AVX512_ONLY))
    lanes, tile = TILES[name]
    return Target(name, lanes, tile, features, llvm.get_host_cpu_name())
