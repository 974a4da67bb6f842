"""Strategies on hosts with a network between them: they cross over where the model of their costs says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import hosts
import numpy as np
import pytest

pytest.importorskip("mpi4py")
HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(hosts.missing() is not None, reason=str(hosts.missing()))

WITHIN = 1.25
SLOW = {"heads": 32, "kv_heads": 8, "keys": 1024, "head_dim": 128}
FAST = {"heads": 8, "kv_heads": 4, "keys": 512, "head_dim": 256}
"""Shapes whose messages last longer than their computing on a slow link, and about as long on a fast one."""


def crossing(points: list[dict], kind: str) -> float:
    """Queries at which both strategies take equally long: a line through the logarithm of their ratio."""
    across = np.log([point["queries"] for point in points])
    ratio = np.log([point[kind][0] / point[kind][1] for point in points])
    slope, offset = np.polyfit(across, ratio, 1)
    return math.exp(-offset / slope)


def run(count: int, gbits: float, shape: dict, overlap: str, pair: tuple[str, str], folder: Path) -> dict:
    """What both strategies did on so many hosts."""
    report = folder / "report.json"
    with hosts.Hosts(count, gbits, folder) as cluster:
        done = cluster.run(str(HERE / "cross_over.py"), str(report), json.dumps(shape), overlap, *pair)
    assert done.returncode == 0, done.stderr
    found = json.loads(report.read_text())
    assert len(set(found["hosts"])) == count
    assert found["network"]["bandwidth"] < 1.05 * gbits / 8 * 1e9, "something other than the link carried the messages"
    return found


def test_strategies_run_on_hosts_whose_messages_take_the_link(tmp_path):
    found = run(2, 1, SLOW, "on", ("ring", "pass_q"), tmp_path)
    for point in found["points"]:
        assert min(point["measured"]) > 0 and min(point["predicted"]) > 0


@pytest.mark.long
@pytest.mark.parametrize("pair", [("allgather", "spread"), ("ring", "pass_q")], ids=" or ".join)
@pytest.mark.parametrize(
    ("count", "gbits", "shape", "overlap"),
    [(2, 1, SLOW, "on"), (3, 1, SLOW, "on"), (4, 1, SLOW, "on"), (2, 10, FAST, "off"), (4, 10, FAST, "off")],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_strategies_cross_where_the_model_says(count, gbits, shape, overlap, pair, tmp_path):
    """By hand, on a machine that does nothing else and has a core for every host: it compares times.

    At 10 Gbit/s the protocol keeps a core of every host busy, so that nothing can hide behind computing there.
    """
    found = run(count, gbits, shape, overlap, pair, tmp_path)
    measured, predicted = (crossing(found["points"], kind) for kind in ("measured", "predicted"))
    assert 1 / WITHIN < measured / predicted < WITHIN, found
