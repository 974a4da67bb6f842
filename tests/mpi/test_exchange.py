"""The probes of the network: what they exchange arrives, on every rank."""

import json
from pathlib import Path

import pytest
from test_strategies import run_ranks

HERE = Path(__file__).parent


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_is_exchanged_arrives(ranks, tmp_path):
    done = run_ranks(ranks, str(HERE / "exchange_over_ranks.py"), str(tmp_path / "errors.json"))
    assert done.returncode == 0, done.stderr
    errors = json.loads((tmp_path / "errors.json").read_text())
    for name, values in errors.items():
        if name.endswith("after"):
            assert values == [0.0] * ranks, name
        elif not name.startswith("ping_pong"):  # of an odd number one sits out
            assert min(values) > 0, f"{name}: nothing was exchanged, and nobody noticed"
