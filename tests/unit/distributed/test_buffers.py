from dataclasses import replace

import pytest

from streaming_attention.distributed import buffers
from streaming_attention.distributed.strategies import STRATEGIES
from streaming_attention.machine.layout import Layout
from streaming_attention.registry import METHODS
from streaming_attention.workload import Workload

PREFILL = Workload("prefill", heads=16, kv_heads=8, queries=65536, keys=65536, causal=True)
KV = 2 * 8 * 65536 * 128 * 4


def workspace(strategy: str, ranks: int, workload: Workload = PREFILL, overlap: str = "on") -> int:
    return buffers.workspace(workload, 1, ranks=ranks, strategy=strategy, overlap=overlap, block=128)


@pytest.mark.parametrize("strategy", ["ring", "zigzag", "pass_q"])
def test_what_travels_takes_two_or_three_blocks_and_shrinks_with_the_ranks(strategy):
    sizes = [workspace(strategy, ranks) for ranks in (4, 8, 16)]
    assert sizes[0] > 1.7 * sizes[1] > 1.7**2 * sizes[2] * 0.8
    assert 2 * KV / 4 <= workspace("ring", 4) <= 2.3 * KV / 4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_sixteen_bits_travel_in_half_the_bytes_and_add_up_in_fp32(strategy):
    half = replace(PREFILL, dtype="bf16")
    rows = 16 * 65536 * (1 if strategy == "spread" else 1 / 4)
    sums = 0 if strategy == "heads" else 4 * 128 * rows
    less = {"ring": KV / 4, "zigzag": KV / 4, "allgather": KV / 2, "pass_q": 2 * rows * 128 * 2, "spread": 0}
    saved = less.get(strategy, (2 * 4 * 65536 * 128 + 4 * 65536 * 128) * 2)
    assert workspace(strategy, 4) - workspace(strategy, 4, half) == pytest.approx(saved - sums, rel=0.02, abs=2**20)


def test_two_ranks_need_one_buffer():
    assert KV / 2 <= workspace("ring", 2) <= 1.1 * KV / 2


def test_all_gather_holds_everything_on_every_rank():
    assert KV <= workspace("allgather", 16) <= 1.1 * KV


def test_heads_hold_all_tokens_of_some_heads():
    share = (2 * 8 + 2 * 4) * 65536 * 128 * 4
    assert share <= workspace("heads", 2) <= 1.1 * share
    few = replace(PREFILL, heads=2, kv_heads=2)
    assert workspace("heads", 2, few) == workspace("heads", 8, few)


def test_spread_keeps_states_of_all_queries():
    query = Workload("query", queries=1, keys=1 << 20)
    assert workspace("spread", 2, query) < 2**21


def test_a_method_says_what_each_strategy_needs():
    method, layout = METHODS["streaming"], Layout(ranks_per_socket=4)
    needed = {
        strategy: method.workspace_bytes(PREFILL, layout, {"strategy": strategy}) for strategy in ("ring", "allgather")
    }
    assert needed["ring"] < needed["allgather"]
    held = {strategy: method.tensor_bytes(PREFILL, layout, {"strategy": strategy}) for strategy in ("ring", "spread")}
    assert held["ring"] == (2 * 16 + 2 * 8) * 65536 // 4 * 128 * 4
    assert held["spread"] == (2 * 16 * 65536 + 2 * 8 * 65536 // 4) * 128 * 4
    lean = layout.ranks_per_node * (held["ring"] + needed["ring"]) * 1.2
    assert method.infeasible(PREFILL, layout, int(lean), {"strategy": "ring"}) is None
    assert "GiB a node" in method.infeasible(PREFILL, layout, int(lean), {"strategy": "spread"})
