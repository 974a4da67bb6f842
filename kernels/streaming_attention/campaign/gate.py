"""What the gate decided: which methods must not be timed, read from its records before a job starts."""

from __future__ import annotations

from collections.abc import Iterable

from streaming_attention.campaign.record import load_record
from streaming_attention.registry import METHODS


def refused_methods(paths: Iterable[str]) -> dict[str, str]:
    """Methods that must not be timed, with the reason, from the gate's records.

    Raises
    ------
    streaming_attention.campaign.record.RecordError
        A gate record is damaged.
    ValueError
        A gate record judged other sources than those that would be measured.
    """
    refused = {}
    for path in paths:
        record = load_record(path)
        now_digest = METHODS[record["method"]].digest()
        if record["sources_digest"] != now_digest:
            raise ValueError(f"{path}: judged other kernel sources of {record['method']}; run the gate again")
        if record["status"] not in ("passed", "infeasible"):
            refused[record["method"]] = f"stopped at the gate: {record['reason']}"
    return refused
