"""The published measurements that figures draw beside ours: one query over T keys, and STREAM.

They were taken on other hardware, each as a single number without an interval. The publication speaks of prefill,
but its times are of one query over T keys (8.59 ms for 2 x 65536 x 128 floats is 7.8 GB/s; a prefill of that length
would be 2.2 TFLOP), so they belong beside the ``query`` workload.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd

from streaming_attention.campaign.files import sha256_of

PATH = Path(__file__).with_name("published.csv")
HARDWARE = "2 x Xeon Gold 6230R, other hardware"
NAMES = {
    "naive_serial": "naive",
    "gemm_threads": "gemm",
    "streaming_serial": "streaming",
    "streaming_threads": "streaming",
    "streaming_mpi": "streaming",
}
"""The registry's name of every published method."""


@functools.cache
def digest() -> str:
    """Digest of the published data, as in the sidecars."""
    return sha256_of(PATH)


def load_times() -> pd.DataFrame:
    """Published run times: ``id, variant, method, keys, head_dim, block, ranks, threads, seconds``.

    ``id`` is ``published:<line of the file>``; ``variant`` the publication's own name of the method.
    """
    frame = _load("time")
    frame["seconds"] = frame["value"] / 1e3
    frame["variant"] = frame["method"]
    frame["method"] = frame["variant"].map(NAMES)
    return frame[["id", "variant", "method", "keys", "head_dim", "block", "ranks", "threads", "seconds"]]


def load_bandwidth() -> pd.DataFrame:
    """Published STREAM rates of one socket: ``id, name, ranks, threads, rate`` in GB/s."""
    frame = _load("bandwidth").rename(columns={"value": "rate"})
    frame["name"] = frame["method"].str.removeprefix("stream_")
    return frame[["id", "name", "ranks", "threads", "rate"]]


def lookup(identifier: str) -> float:
    """The number behind ``published:<line>``: seconds, or GB/s.

    Raises
    ------
    KeyError
        There is no such line.
    """
    if identifier not in _numbers():
        raise KeyError(f"{identifier}: not a line of {PATH.name}")
    return _numbers()[identifier]


@functools.cache
def _numbers() -> dict[str, float]:
    frame = _table()
    return dict(zip(frame["id"], frame["value"].where(frame["unit"] != "ms", frame["value"] / 1e3), strict=True))


@functools.cache
def _table() -> pd.DataFrame:
    counts = dict.fromkeys(("keys", "head_dim", "block", "ranks", "threads"), "Int64")
    frame = pd.read_csv(PATH, dtype=counts)
    frame.insert(0, "id", [f"published:{line}" for line in range(2, len(frame) + 2)])
    return frame


def _load(quantity: str) -> pd.DataFrame:
    frame = _table()
    return frame[frame["quantity"] == quantity].copy()
