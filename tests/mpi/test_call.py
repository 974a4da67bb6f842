"""The public call over ranks, in a program as a user would write it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_strategies import run_ranks

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def report(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("call") / "report.json"
    done = run_ranks(request.param, str(HERE / "call_over_ranks.py"), str(path))
    assert done.returncode == 0, done.stderr
    return {"ranks": request.param, **json.loads(path.read_text())}


def test_every_case_agrees_with_the_oracle(report):
    wrong = {name: case for name, case in report["cases"].items() if not (case["passed"] and case.get("proper", True))}
    assert not wrong
    assert len(report["cases"]) > 40


ERRORS = {
    "k on the last rank": "ValueError: k: shape (1, 2, 4, 4) doesn't fit q's (1, 2, 4, 8)",
    "q on the last rank": "TypeError: q: list is not a numpy array",
    "causal differs": "ValueError: causal: ",
    "scale differs": "ValueError: scale: ",
    "heads differ": "ValueError: heads of k: ",
    "dtype differs": "ValueError: dtype of k: ",
    "strategy unknown": "ValueError: strategy: 'rings' is not known; allowed: auto, spread",
    "strategy impossible": "ValueError: strategy: 'spread' is not possible",
    "zigzag of the same queries": "ValueError: placement: 'zigzag', but same_queries",
    "zigzag uneven": "ValueError: k: rank ",
    "queries differ": "ValueError: q: 3 rows on rank ",
    "starts end early": "ValueError: cu_seqlens_q: ends with ",
    "starts differ": "ValueError: cu_seqlens_q: ",
    "starts of keys": "ValueError: cu_seqlens_k: 3 entries, must be 2",
    "unknown option": "OptionError: option blocks: streaming has no such option; allowed: block, isa",
    "threads": "ValueError: threads: 1000000 is not from 1",
    "no communicator": "TypeError: comm: NoneType is not an mpi4py communicator",
}
ONE_RANK_HAS_NOBODY_TO_DIFFER_FROM = {"causal differs", "scale differs", "heads differ", "dtype differs"}
ONE_RANK_HAS_NOBODY_TO_DIFFER_FROM |= {"starts differ", "queries differ", "zigzag uneven"}


def test_the_guides_example_runs(tmp_path):
    guide = (HERE.parents[1] / "docs/ranks.md").read_text()
    (tmp_path / "program.py").write_text(guide.partition("```python\n")[2].partition("```")[0])
    done = run_ranks(2, str(tmp_path / "program.py"))
    assert done.stdout == "rows of each rank: [1000, 1000]\n", done.stderr


def test_a_mistake_is_named_on_every_rank(report):
    ranks, last = report["ranks"], report["ranks"] - 1
    assert set(report["errors"]) == set(ERRORS)
    for name, said in report["errors"].items():
        if ranks == 1 and name in ONE_RANK_HAS_NOBODY_TO_DIFFER_FROM:
            continue
        kind, _, words = ERRORS[name].partition(": ")
        assert len(said) == ranks
        assert said[last].startswith(ERRORS[name]), name
        alone = name.endswith("on the last rank") or name == "threads"
        for mine in said[:last]:
            assert mine.startswith(f"{kind}: rank {last}: {words}" if alone else ERRORS[name]), (name, mine)
