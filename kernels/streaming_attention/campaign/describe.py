"""A record in a few lines, for the terminal of whoever repeats a job by hand."""

from __future__ import annotations

from streaming_attention.campaign.statistics import median_interval


def summarise(record: dict) -> str:
    """The record's results as aligned text: one line per method, ceiling or case."""
    lines = [f"{record['id']}: {record['kind']}, {record['seconds']:.1f} s"]
    lines += [_method(entry) for entry in record.get("methods", ())]
    lines += [_ceiling(entry) for entry in record.get("ceilings", ())]
    lines += [_case(entry) for entry in record.get("cases", ())]
    if "status" in record:
        lines.append(f"  {record['status']}" + (f": {record['reason']}" if record["reason"] else ""))
    return "\n".join(lines)


def _method(entry: dict) -> str:
    if entry["status"] != "passed":
        return f"  {entry['label']:28s} {entry['status']}: {entry['reason']}"
    interval = median_interval(entry["samples"])
    rate = entry["flops"] / interval.median / 1e9
    median, low, high = (1e3 * seconds for seconds in interval)
    return (
        f"  {entry['label']:28s} {median:11.4f} ms  [{low:.4f}, {high:.4f}]"
        f"  {rate:8.1f} GFLOP/s  {len(entry['samples'])} samples, error {entry['error_after']['relative_l2']:.1e}"
    )


def _ceiling(entry: dict) -> str:
    if entry["status"] != "passed":
        return f"  {entry['name']:12s} {entry['status']}: {entry['reason']}"
    interval = median_interval(entry["samples"])
    return f"  {entry['name']:12s} {interval.median:8.1f} {entry['unit']}  [{interval.low:.1f}, {interval.high:.1f}]"


def _case(entry: dict) -> str:
    return f"  {entry['name']}: " + ("passed" if entry["passed"] else entry["reason"])
