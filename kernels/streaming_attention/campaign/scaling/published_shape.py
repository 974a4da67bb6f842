"""The published table of one query over 1 to 16 ranks, from that cluster's own numbers.

What one rank takes at each T is published; the rest is :mod:`streaming_attention.distributed.choose`'s spread keys: a
rank reads its share of K and V at the same rate, then states are merged in log2(ranks) rounds. The publication says
nothing of its network, so the time of a round is fitted to the shortest T alone, whose calls are hardly anything else.
A second model adds a share of the one rank's time that no rank takes off, fitted to what is left at longer T, but not
on the most ranks: whether those follow is the test.
"""

from __future__ import annotations

import pandas as pd

from streaming_attention import models
from streaming_attention.campaign import published
from streaming_attention.distributed.choose import Network, Rates, costs
from streaming_attention.workload import Workload

METHOD = "streaming_mpi"
BANDWIDTH = 1.25e9
"""Assumed bytes per second of its network; a state is 520 bytes, so that it hardly matters."""
UNLIMITED = 1e9
"""GFLOP/s where arithmetic is not what limits a call."""
MISS = 25.0
"""Percent beyond which the model does not reproduce a point."""


def reproduce() -> pd.DataFrame:
    """The table and both models.

    Returns
    -------
    DataFrame
        ``record, keys, ranks, milliseconds``; ``model`` and ``serial_model`` in milliseconds; ``error`` and
        ``serial_error`` in percent of the published time.
    """
    frame = published_ranks()
    latency, serial = round_seconds(frame), serial_share(frame)
    rows = frame.to_dict("records")
    frame["model"] = [1e3 * _seconds(row, latency) for row in rows]
    frame["serial_model"] = [1e3 * _seconds(row, latency, serial) for row in rows]
    frame["error"] = 100 * (frame["model"] / frame["milliseconds"] - 1)
    frame["serial_error"] = 100 * (frame["serial_model"] / frame["milliseconds"] - 1)
    return frame.drop(columns="alone")


def published_ranks() -> pd.DataFrame:
    """Published times of one thread a rank, with that of one rank at the same T (``alone``) beside each."""
    times = published.load_times()
    times = times[(times["variant"] == METHOD) & (times["threads"] == 1)]
    alone = times[times["ranks"] == 1].set_index("keys")["seconds"]
    frame = times[["id", "keys", "ranks", "seconds"]].rename(columns={"id": "record"})
    frame = frame.assign(milliseconds=1e3 * frame["seconds"], alone=frame["keys"].map(alone))
    return frame.drop(columns="seconds").sort_values(["keys", "ranks"], ignore_index=True)


def round_seconds(frame: pd.DataFrame) -> float:
    """Seconds of a round of merging: least squares over the ranks of the shortest T."""
    short = frame[(frame["keys"] == frame["keys"].min()) & (frame["ranks"] > 1)]
    rounds = [_rounds(ranks) for ranks in short["ranks"]]
    left = short["milliseconds"] / 1e3 - short["alone"] / short["ranks"]
    return float(sum(count * rest for count, rest in zip(rounds, left, strict=True)) / sum(n * n for n in rounds))


def serial_share(frame: pd.DataFrame) -> float:
    """Share of one rank's time that doesn't shrink: least squares, relative, on all but the most ranks."""
    latency = round_seconds(frame)
    fitted = frame[(frame["ranks"] > 1) & (frame["ranks"] < frame["ranks"].max())]
    above = below = 0.0
    for row in fitted[fitted["keys"] > frame["keys"].min()].to_dict("records"):
        measured = row["milliseconds"] / 1e3
        slope = row["alone"] * (1 - 1 / row["ranks"]) / measured
        above += slope * (1 - _seconds(row, latency) / measured)
        below += slope * slope
    return above / below


def findings(frame: pd.DataFrame) -> list[str]:
    """In words: what the models reproduce of the table, and where they don't."""
    latency, serial = round_seconds(published_ranks()), serial_share(published_ranks())
    most, longest = int(frame["ranks"].max()), int(frame["keys"].max())
    inner, outer = frame[(frame["ranks"] > 1) & (frame["ranks"] < most)], frame[frame["ranks"] == most]
    last = outer[outer["keys"] == longest].iloc[0]
    return [
        f"one rank reads {_rate(longest):.3g} GB/s at T = {longest}, "
        f"{100 * _rate(longest) / _triad():.0f} % of its STREAM triad on one thread",
        f"a round of merging takes {1e6 * latency:.0f} µs, fitted at T = {frame['keys'].min()}",
        f"up to {int(inner['ranks'].max())} ranks bandwidth and rounds alone are off by {_range(inner['error'])}; with "
        f"{100 * serial:.1f} % of one rank's time that doesn't shrink by {_range(inner['serial_error'])}",
        "both have the published shape there: more ranks are faster, and the more so the longer T",
        f"on {most} ranks the second is off by {_range(outer['serial_error'])}: at T = {longest} it says "
        f"{last['serial_model']:.2f} ms, {last['milliseconds']:.2f} were published. What it lacks there grows with T, "
        "so it is no message, whose size and number are the same at every T; two ranks that share one socket's memory "
        "would look like this",
    ]


def misses(frame: pd.DataFrame) -> pd.DataFrame:
    """Points that even the second model misses by more than :data:`MISS` percent."""
    return frame[frame["serial_error"].abs() > MISS]


def _seconds(row: dict, latency: float, serial: float = 0.0) -> float:
    workload = Workload("query", keys=int(row["keys"]))
    rates = Rates(UNLIMITED, models.bytes_moved(workload) / row["alone"] / 1e9)
    cost = costs("spread", workload, int(row["ranks"]), Network(latency, BANDWIDTH), rates)
    return cost.seconds + serial * (row["alone"] - row["alone"] / row["ranks"])


def _rounds(ranks: int) -> int:
    return (int(ranks) - 1).bit_length()


def _rate(keys: int) -> float:
    frame = published_ranks()
    alone = frame.loc[frame["keys"] == keys, "alone"].iloc[0]
    return models.bytes_moved(Workload("query", keys=keys)) / alone / 1e9


def _triad() -> float:
    rates = published.load_bandwidth()
    return float(rates.loc[(rates["name"] == "triad") & (rates["threads"] == 1), "rate"].iloc[0])


def _range(percents: pd.Series) -> str:
    return f"{percents.min():+.0f} to {percents.max():+.0f} %"
