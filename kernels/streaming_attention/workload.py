"""The attention problem: its shape, its precision, and the seeded inputs that every method receives."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Workload:
    """One attention problem.

    Two workloads lead: ``prefill`` (queries = keys = T) and ``query`` (one query over T keys).

    Parameters
    ----------
    name : str
        The name under which the configuration defines it, used in figures and point ids.
    batch, heads, kv_heads, queries, keys, head_dim : int
        Q and O are (batch, heads, queries, head_dim), K and V are (batch, kv_heads, keys, head_dim).
        ``heads`` is a multiple of ``kv_heads`` (grouped-query attention).
    causal : bool
        Bottom-right aligned: query i sees the keys j <= i + keys - queries.
    dtype : str
        A name in :data:`streaming_attention.dtypes.DTYPES`.
    """

    name: str
    batch: int = 1
    heads: int = 1
    kv_heads: int = 1
    queries: int = 1
    keys: int = 1
    head_dim: int = 128
    causal: bool = False
    dtype: str = "fp32"

    @property
    def scale(self) -> float:
        """Factor on the logits, head_dim ** -0.5."""
        return self.head_dim**-0.5

    @property
    def slug(self) -> str:
        """File-name form, the same for equal workloads and different for different ones."""
        mask = "causal" if self.causal else "full"
        return (
            f"{self.name}-b{self.batch}-h{self.heads}x{self.kv_heads}-q{self.queries}-k{self.keys}"
            f"-d{self.head_dim}-{mask}-{self.dtype}"
        )

    def as_dict(self) -> dict:
        return asdict(self)
