import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from streaming_attention import models, sources
from streaming_attention.campaign import specs
from streaming_attention.distributed.strategies import STRATEGIES
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS, Choice, Option, OptionError, UnknownMethod, expand, find_method
from streaming_attention.slices import Holding
from streaming_attention.workload import Workload

PREFILL = Workload("prefill", heads=2, queries=1000, keys=1000)


def test_names_are_the_entries_own():
    assert all(name == method.name for name, method in METHODS.items())
    assert {"naive", "gemm", "streaming", "torch_sdpa"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_targets_are_files_of_the_package(name):
    paths = METHODS[name].sources()
    assert all(path.is_file() for path in paths)
    module = METHODS[name].target.partition(":")[0].rpartition(".")[2]
    assert f"{module}.py" in {path.name for path in paths}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.available() is None])
def test_targets_load(name):
    method = METHODS[name]
    assert callable(method.load())
    if method.distributed_target is None:
        with pytest.raises(ValueError, match=f"{name} runs on one rank, not on 2"):
            method.load(2)


def test_sources_follow_imports_to_the_end():
    names = {path.name for path in METHODS["streaming"].sources()}
    assert {"attend.py", "spread.py", "loops.py", "state.py", "schedule.py", "exponential.py", "parallel.py"} <= names
    assert not {"naive.py", "gemm.py", "registry.py", "api.py"} & names


def test_digest_changes_with_any_source(tmp_path, monkeypatch):
    root = tmp_path / sources.PACKAGE
    shutil.copytree(sources.ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(sources, "ROOT", root)
    before = {name: method.digest() for name, method in METHODS.items()}
    state = root / "streaming" / "state.py"
    state.write_text(state.read_text() + "# changed\n")
    changed = {name for name, method in METHODS.items() if method.digest() != before[name]}
    assert changed == {"streaming", "streaming_loops"}


def test_source_of_an_unknown_module_is_an_error():
    with pytest.raises(ModuleNotFoundError, match=r"streaming_attention\.nothing"):
        sources.sources_of(["streaming_attention.nothing"])


@pytest.mark.parametrize(
    "entry, labels",
    [
        ("naive", ["naive"]),
        ({"streaming": None}, ["streaming"]),
        ({"streaming_loops": {"block": 64}}, ["streaming_loops block=64"]),
        ({"streaming": {"overlap": [True, False]}}, ["streaming overlap=on", "streaming overlap=off"]),
        ({"streaming_loops": {"block": [64, 128]}}, ["streaming_loops block=64", "streaming_loops block=128"]),
    ],
)
def test_expand(entry, labels):
    choices = expand(entry)
    assert [choice.label for choice in choices] == labels
    assert len(set(choices)) == len(choices)


@pytest.mark.parametrize(
    "entry, error, said",
    [
        ("flash", UnknownMethod, ["'flash'", "naive", "streaming"]),
        (3, UnknownMethod, ["3"]),
        ({"naive": None, "gemm": None}, UnknownMethod, ["one name"]),
        ({"streaming_loops": {"blocks": 64}}, OptionError, ["blocks", "streaming", "block"]),
        ({"naive": {"block": 64}}, OptionError, ["block", "naive", "none"]),
        ({"streaming_loops": {"block": 8}}, OptionError, ["block", "8", "16 to 4096"]),
        ({"streaming_loops": {"block": "64"}}, OptionError, ["block", "'64'", "integer"]),
        ({"streaming_loops": {"block": True}}, OptionError, ["block", "True"]),
        ({"streaming_loops": {"block": []}}, OptionError, ["block", "empty"]),
        ({"streaming": {"isa": "mmx"}}, OptionError, ["isa", "mmx", "avx512, avx2"]),
        ({"streaming": {"strategy": "rings"}}, OptionError, ["strategy", "rings", "auto, spread", "pass_q"]),
        ({"streaming": {"overlap": "maybe"}}, OptionError, ["overlap", "maybe", "on, off"]),
        ({"streaming": {"isa": True}}, OptionError, ["isa", "True", "avx512"]),
        ({"streaming": 64}, OptionError, ["streaming", "64"]),
    ],
)
def test_expand_names_what_is_wrong(entry, error, said):
    with pytest.raises(error) as caught:
        expand(entry)
    assert all(word in str(caught.value) for word in said), caught.value
    assert isinstance(caught.value, ValueError)


def test_completed_options_have_every_default():
    assert METHODS["streaming_loops"].complete({}) == {"block": METHODS["streaming_loops"].options["block"].default}
    assert METHODS["streaming_loops"].complete({"block": 64}) == {"block": 64}
    alone = METHODS["streaming"].complete({"isa": "avx2"}, over_ranks=False)
    assert alone == {"block": 128, "isa": "avx2"}
    assert METHODS["streaming"].complete({"isa": "avx2"}) == alone | {"strategy": "auto", "overlap": "on"}


def test_options_over_ranks_are_taken_on_one_rank_and_unknown_to_a_call():
    method, workload, given = METHODS["streaming"], Workload("x", queries=8, keys=8), {"strategy": "ring"}
    assert method.workspace_bytes(workload, Layout(), given) == method.workspace_bytes(workload, Layout())
    assert method.holding(workload, Layout(), 0, given) == Holding.whole(workload)
    with pytest.raises(OptionError, match="strategy: streaming has no such option; allowed: block, isa"):
        method.complete(given, over_ranks=False)


def test_the_gate_tries_every_way_to_work_together():
    campaign = SimpleNamespace(name="x")
    ways = specs.gate_spec(campaign, "streaming", "fp32", "ranks")["options"]
    tried = [(METHODS["streaming"].complete(way)["strategy"], way.get("overlap", "on")) for way in ways]
    assert set(tried) == set(itertools.product(["auto", *STRATEGIES], ["on", "off"]))
    assert all("strategy" not in way for way in specs.gate_spec(campaign, "streaming", "fp32", "threads")["options"])
    assert specs.gate_spec(campaign, "streaming_loops", "fp32", "ranks")["options"] == [
        {},
        {"block": 16},
        {"block": 4096},
    ]


def test_option_bounds_belong_to_the_range():
    option = Option(default=4, minimum=2, maximum=6)
    assert [option.check("size", value) for value in (2, 6)] == [2, 6]
    for value in (1, 7):
        with pytest.raises(OptionError, match="size"):
            option.check("size", value)


def test_equal_choices_hash_alike():
    assert {Choice("streaming_loops", {"block": 64}), Choice("streaming_loops", {"block": 64})} == {
        expand({"streaming_loops": {"block": 64}})[0]
    }


@pytest.mark.parametrize("name", ["naive", "gemm", "torch_sdpa"])
def test_one_rank_methods_refuse_more(name):
    method = replace(METHODS[name], requires=())
    assert method.infeasible(PREFILL, Layout()) is None
    assert "one rank" in method.infeasible(PREFILL, Layout(sockets=2))


def test_ranks_need_mpi4py(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "mpi4py, which is not installed" in METHODS["streaming"].infeasible(PREFILL, Layout(sockets=2))


def test_arrays_of_bf16_need_ml_dtypes(monkeypatch):
    assert METHODS["streaming"].infeasible(replace(PREFILL, dtype="bf16"), Layout()) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = METHODS["streaming"].infeasible(replace(PREFILL, dtype="bf16"), Layout())
    assert reason == "arrays of bf16 need ml_dtypes, which is not installed"


def test_infeasible_reasons_name_what_is_missing():
    pytest.importorskip("mpi4py")
    method = METHODS["streaming"]
    assert method.infeasible(PREFILL, Layout(sockets=2, threads=3), 2**30) is None
    assert "naive has no bf16, only fp32" in METHODS["naive"].infeasible(replace(PREFILL, dtype="bf16"), Layout())
    assert "one thread" in replace(method, threads=False).infeasible(PREFILL, Layout(threads=2))
    assert method.infeasible(replace(PREFILL, dtype="bf16"), Layout(sockets=2)) is None
    loops = METHODS["streaming_loops"].infeasible(replace(PREFILL, dtype="bf16"), Layout(sockets=2))
    assert loops == "streaming_loops has no bf16 over ranks, only fp32"
    absent = replace(method, requires=("no_such_module",))
    assert absent.available() == absent.infeasible(PREFILL, Layout()) == "no_such_module is not installed"


def test_scores_that_do_not_fit_are_infeasible_and_streaming_is_not():
    workload = Workload("prefill", queries=65536, keys=65536)
    for name in ("naive", "gemm"):
        assert "16 of it workspace" in METHODS[name].infeasible(workload, Layout(), 16 * 2**30)
        assert METHODS[name].infeasible(workload, Layout(), 20 * 2**30) is None
    assert METHODS["streaming"].infeasible(workload, Layout(), 2**30) is None


def test_memory_counts_every_rank_of_a_node():
    pytest.importorskip("mpi4py")
    workload = Workload("query", heads=8, kv_heads=8, queries=4096, keys=8, head_dim=128)
    spread = {"strategy": "spread"}
    one = models.tensor_bytes(workload) + METHODS["streaming"].workspace_bytes(workload, Layout())
    assert METHODS["streaming"].infeasible(workload, Layout(ranks_per_socket=1), 3 * one) is None
    assert "GiB a node" in METHODS["streaming"].infeasible(workload, Layout(ranks_per_socket=4), 3 * one, spread)
    assert METHODS["streaming"].infeasible(workload, Layout(nodes=4), 3 * one, spread) is None


def test_torch_refuses_what_it_has_no_result_for():
    method = replace(METHODS["torch_sdpa"], requires=())
    assert "queries > keys" in method.infeasible(Workload("x", queries=5, keys=3, causal=True), Layout())
    assert method.infeasible(Workload("x", queries=3, keys=5, causal=True), Layout()) is None


def test_find_method():
    assert find_method("naive") is METHODS["naive"]
    with pytest.raises(UnknownMethod, match="'x'"):
        find_method("x")


def test_importing_the_registry_loads_nothing_heavy():
    script = "import json, sys, streaming_attention.registry; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert not {"numpy", "numba", "pandas", "mpi4py", "torch"} & set(loaded)


def test_only_distributed_knows_mpi():
    users = {
        path.relative_to(sources.ROOT).parts[0]
        for path in Path(sources.ROOT).rglob("*.py")
        if any(line.split()[:2] == ["from", "mpi4py"] for line in path.read_text().splitlines())
    }
    assert users <= {"distributed"}
