"""Costs of the strategies: exact counts, laws that hold for all of them, and the choice between them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention import models
from streaming_attention.distributed.choose import Network, Rates, choose, costs, nominal_rates, resolve
from streaming_attention.distributed.strategies import OVERLAPPING, STRATEGIES
from streaming_attention.workload import Workload

ARITHMETIC = Rates(gflops=1e-9, gbs=1e12)
"""One FLOP a second and memory for nothing: seconds of computing are FLOPs."""
NONE = Network(latency=0.0, bandwidth=1e30)
QUERY = Workload("query", heads=8, kv_heads=2, keys=1 << 20)
PREFILL = Workload("prefill", heads=8, kv_heads=2, queries=4096, keys=4096, causal=True)
WORKLOADS = st.builds(
    lambda group, kv, queries, keys, d, causal, batch: Workload("x", batch, group * kv, kv, queries, keys, d, causal),
    *(st.integers(1, high) for high in (3, 3, 50, 50, 16)),
    st.booleans(),
    st.integers(1, 2),
)
every = pytest.mark.parametrize("strategy", STRATEGIES)


@every
@given(WORKLOADS)
def test_one_rank_sends_nothing_and_computes_everything(strategy, workload):
    cost = costs(strategy, workload, 1, rates=ARITHMETIC)
    assert (cost.bytes_sent, cost.messages) == (0, 0)
    assert cost.seconds == cost.compute_seconds == pytest.approx(models.flops(workload))
    assert cost.memory_bytes == models.tensor_bytes(workload)


@every
@given(WORKLOADS, st.integers(2, 9))
def test_no_rank_computes_less_than_its_share_or_more_than_all(strategy, workload, ranks):
    busiest = costs(strategy, workload, ranks, NONE, ARITHMETIC).compute_seconds
    assert models.flops(workload) / ranks <= busiest * (1 + 1e-9)
    assert busiest <= models.flops(workload) * (1 + 1e-9) + 1e-3


@every
@given(WORKLOADS, st.integers(2, 9))
def test_overlap_hides_messages_and_never_computing(strategy, workload, ranks):
    network = Network(1e-4, 1e6)
    hidden, shown = (costs(strategy, workload, ranks, network, overlap=overlap) for overlap in (True, False))
    assert hidden.compute_seconds <= hidden.seconds * (1 + 1e-12) <= shown.seconds * (1 + 2e-12)
    if strategy not in OVERLAPPING:
        assert hidden == shown


def test_contiguous_queries_are_uneven_under_a_causal_mask_and_zigzag_is_even():
    ring, zigzag = (costs(name, PREFILL, 4, NONE, ARITHMETIC).compute_seconds for name in ("ring", "zigzag"))
    assert zigzag == pytest.approx(models.flops(PREFILL) / 4, rel=1e-3)
    assert ring / zigzag == pytest.approx(2 - 1 / 4, rel=1e-3)
    full = replace(PREFILL, causal=False)
    assert costs("ring", full, 4, NONE, ARITHMETIC) == costs("zigzag", full, 4, NONE, ARITHMETIC)


def test_bytes_by_hand():
    """4 ranks; 1024 tokens each of 128 float32: K and V of 2 heads, Q of 8; states have 2 numbers more."""
    token = 128 * 4
    sent = {name: costs(name, PREFILL, 4).bytes_sent for name in STRATEGIES}
    assert sent["allgather"] == sent["ring"] == sent["zigzag"] == 3 * 1024 * 2 * 2 * token
    assert sent["spread"] == 2 * 4096 * 8 * 130 * 4
    assert sent["pass_q"] == 1024 * 8 * (3 * token + 4 * 129 * 4)
    # 6 of 8 heads of Q leave; each head of K and V is needed by two ranks, one of which may be this; 2 heads of O go
    assert sent["heads"] == 1024 * 6 * token + 3 * 1024 * 2 * token + 3 * 1024 * 2 * 129 * 4


def test_sixteen_bits_halve_what_is_stored_and_results_stay_fp32():
    half, token = replace(PREFILL, dtype="bf16"), 128 * 2
    sent = {name: costs(name, half, 4).bytes_sent for name in STRATEGIES}
    assert sent["allgather"] == sent["ring"] == sent["zigzag"] == 3 * 1024 * 2 * 2 * token
    assert sent["spread"] == 2 * 4096 * 8 * 130 * 4
    assert sent["pass_q"] == 1024 * 8 * (3 * token + 4 * 129 * 4)
    assert sent["heads"] == 1024 * 6 * token + 3 * 1024 * 2 * token + 3 * 1024 * 2 * (token + 4)
    sums = 1024 * 8 * 128 * 4
    assert costs("ring", half, 4).memory_bytes == costs("ring", PREFILL, 4).memory_bytes // 2 + sums


def test_heads_beyond_the_ranks_leave_ranks_idle():
    cost = costs("heads", replace(PREFILL, heads=2, kv_heads=2), 8, NONE, ARITHMETIC)
    assert cost.compute_seconds == models.flops(replace(PREFILL, heads=1, kv_heads=1))


def test_a_query_over_many_keys_stays_with_its_keys():
    assert {choose(QUERY, ranks) for ranks in (2, 3, 16, 256)} == {"spread"}


def test_prefill_moves_what_is_less():
    slow = Network(1e-5, 1e8)
    assert choose(PREFILL, 4, slow) in ("zigzag", "heads")
    few = replace(PREFILL, queries=64, keys=1 << 18)
    assert choose(few, 4, slow) in ("spread", "pass_q")


def test_equal_costs_take_the_simplest():
    assert choose(PREFILL, 1) == STRATEGIES[0]


def test_the_choice_has_the_shortest_call_of_those_that_fit():
    everything = {name: costs(name, PREFILL, 4) for name in STRATEGIES}
    assert everything[choose(PREFILL, 4)].seconds <= 1.01 * min(cost.seconds for cost in everything.values())
    least = min(cost.memory_bytes for cost in everything.values())
    for limit in (least, 1):
        assert everything[choose(PREFILL, 4, memory_bytes=limit)].memory_bytes == least


def test_the_choice_is_among_those_that_are_possible():
    assert choose(QUERY, 4, among=("ring",)) == "ring"
    assert choose(QUERY, 4, among=("ring", "pass_q")) == "pass_q"


def test_auto_follows_from_nominal_numbers():
    assert resolve("auto", PREFILL, 4, 2) == choose(PREFILL, 4, rates=nominal_rates(2))
    assert resolve("ring", PREFILL, 4, 2) == "ring"


@given(WORKLOADS, st.integers(2, 9))
def test_a_ring_holds_its_share_and_two_blocks(workload, ranks):
    for strategy in ("ring", "zigzag"):
        cost = costs(strategy, workload, ranks)
        block = 2 * workload.batch * workload.kv_heads * -(-workload.keys // ranks) * workload.head_dim * 4
        queries = workload.batch * workload.heads * -(-workload.queries // ranks)
        assert cost.memory_bytes == 3 * block + 2 * queries * workload.head_dim * 4


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="strategy: 'rings' is unknown; allowed: spread"):
        costs("rings", PREFILL, 2)
    with pytest.raises(ValueError, match="ranks: 0"):
        costs("ring", PREFILL, 0)
