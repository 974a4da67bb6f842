"""Numbers of a workload and of a layout in the words that figures and tables use."""

from __future__ import annotations

from collections.abc import Mapping


def say_shape(row: Mapping, square: bool | None = None) -> str:
    """What a workload is beside its name and its length: ``1 query, 4 heads / 2 KV, d = 128, causal, fp32``.

    Parameters
    ----------
    square : bool, optional
        Whether queries = keys = T in all of the workload; by default as in this row.
    """
    square = row["queries"] == row["keys"] > 1 if square is None else square
    queries = "T queries" if square else _counted(row["queries"], "query", "queries")
    grouped = f" / {row['kv_heads']} KV" if row["heads"] != row["kv_heads"] else ""
    batch = [f"batch {row['batch']}"] if row["batch"] > 1 else []
    causal = ["causal"] if row["causal"] else []
    heads = _counted(row["heads"], "head", "heads") + grouped
    return ", ".join([queries, *batch, heads, f"d = {row['head_dim']}", *causal, row["dtype"]])


def say_field(name: str, value) -> str:
    """One field of a shape on its own: ``4 heads``, ``d = 128``, ``full`` for a workload that is not causal."""
    if name == "causal":
        return "causal" if value else "full"
    words = {"batch": "batch {}", "heads": "{} heads", "kv_heads": "{} KV heads", "head_dim": "d = {}"}
    return words.get(name, "{}").format(value)


def say_layout(row: Mapping) -> str:
    """A layout in a few words: ``2 threads``, ``16 ranks × 4 threads``."""
    ranks = f"{row['ranks']} ranks × " if row["ranks"] > 1 else ""
    return ranks + _counted(row["threads"], "thread", "threads") + (", unbound" if row["binding"] == "none" else "")


def say_length(keys: float) -> str:
    """A number of keys in powers of 1024 where it is one: 512, 8K, 64K, 1M."""
    for unit, size in (("M", 1 << 20), ("K", 1 << 10)):
        if keys >= size and keys * 2 % size == 0:
            return f"{keys / size:g}{unit}"
    return f"{keys:g}"


def say_number(value: float) -> str:
    """Short, without a mathematical layout: 1e-7, 0.05, 3, 20 000."""
    return f"{value:,.0f}".replace(",", " ") if 1e3 <= value < 1e6 else f"{value:.6g}".replace("e-0", "e-")


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
