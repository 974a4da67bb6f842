"""Triton's kernels as the registry runs them."""

import numpy as np
import pytest
from problems import assert_right

from streaming_attention.inputs import make_inputs, refill
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS
from streaming_attention.triton import footprint, prebuilt
from streaming_attention.triton import specializations as known
from streaming_attention.workload import Workload

QUERIES = {"triton_streaming": 70, "triton_decode": 2}


def problem(name: str, **others) -> Workload:
    sizes = {
        "batch": 2,
        "heads": 4,
        "kv_heads": 2,
        "queries": QUERIES[name],
        "keys": 90,
        "head_dim": 64,
        "causal": True,
    }
    return Workload("w", **(sizes | others))


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("name", QUERIES)
def test_every_instruction_set_gives_attention_and_reads_its_inputs_anew(name, isa):
    inputs = make_inputs(problem(name), 1)
    try:
        prepared = METHODS[name].load()(inputs, 2, None, {"isa": isa})
    except ValueError as error:
        pytest.skip(str(error))
    assert prepared.kernel.endswith(isa)
    for seed in (1, 2):
        refill(inputs, seed)
        prepared.run()
        assert_right(prepared.output, prepared.lse, inputs.q, inputs.k, inputs.v, causal=True, scale=inputs.scale)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [70, known.PAIR_FROM + 5, known.PAIR_FROM + 77])
def test_tiles_of_long_sequences_go_in_pairs(causal, keys):
    workload = Workload("w", queries=known.PAIR_FROM + 5, keys=keys, head_dim=64, causal=causal)
    inputs = make_inputs(workload, 1)
    prepared = METHODS["triton_streaming"].load()(inputs, 2, None, {})
    prepared.run()
    assert_right(prepared.output, prepared.lse, inputs.q, inputs.k, inputs.v, causal=causal, scale=inputs.scale)
    assert known.prefill_tile(workload.queries, 64) == (known.BLOCK_M, True)
    assert known.prefill_tile(workload.queries, 80) == known.prefill_tile(100, 64) == (known.BLOCK_M, False)


def test_what_the_kernels_cannot_express_has_a_reason():
    decode, prefill = METHODS["triton_decode"], METHODS["triton_streaming"]
    assert "64" in decode.infeasible(Workload("w", heads=64, kv_heads=1, queries=1), Layout())
    assert "head_dim 256" in prefill.infeasible(Workload("w", head_dim=512), Layout())
    assert decode.infeasible(Workload("w", heads=8, kv_heads=2), Layout()) is None


def test_without_its_snapshots_a_method_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr("streaming_attention.sources.ROOT", tmp_path)
    assert METHODS["triton_decode"].available() == "triton/snapshots/decode.json.xz is not installed"


@pytest.mark.parametrize("head_dim", [80, 128])
def test_workspaces_cover_what_a_program_needs(head_dim):
    block, even = known.head_block(head_dim), head_dim in known.HEAD_BLOCKS
    scratch = prebuilt.kernel(known.prefill("fp32", block, even)).compiled.scratch
    assert scratch <= footprint.prefill_workspace(problem("triton_streaming", head_dim=head_dim), 1)
    scratch = prebuilt.kernel(known.prefill("fp32", block, True, pair=True)).compiled.scratch
    long = Workload("w", queries=known.PAIR_FROM, head_dim=block)
    assert scratch <= footprint.prefill_workspace(long, 1)
    for rows in (1, known.ROWS[-1]):
        scratch = prebuilt.kernel(known.decode("fp32", block, rows, even)).compiled.scratch
        workload = problem("triton_decode", heads=2 * rows, queries=1, head_dim=head_dim)
        assert scratch <= footprint.decode_workspace(workload, 1)


def test_a_compiled_kernel_comes_from_the_disk_the_next_time(monkeypatch, tmp_path):
    from streaming_attention.triton.cpu import store
    from streaming_attention.triton.cpu.target import make_target

    monkeypatch.setattr(store.numba.config, "CACHE_DIR", str(tmp_path))
    text, target = prebuilt.read(known.merge("fp32", 32)), make_target("portable")
    compiled = store.load_or_compile(text, target)
    monkeypatch.setattr(store, "compile_ttir", None)
    again = store.load_or_compile(text, target)
    assert again == compiled and np.all([path.suffix == ".kernel" for path in (tmp_path / "triton").iterdir()])


def test_a_damaged_file_of_the_cache_is_compiled_again(monkeypatch, tmp_path):
    from streaming_attention.triton.cpu import store
    from streaming_attention.triton.cpu.target import make_target

    monkeypatch.setattr(store.numba.config, "CACHE_DIR", str(tmp_path))
    text, target = prebuilt.read(known.merge("fp32", 32)), make_target("portable")
    compiled = store.load_or_compile(text, target)
    for path in (tmp_path / "triton").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    assert store.load_or_compile(text, target) == compiled
