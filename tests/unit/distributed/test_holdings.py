import pytest

from streaming_attention import slices
from streaming_attention.distributed.holdings import Heads, holding_of, streaming
from streaming_attention.distributed.strategies import STRATEGIES
from streaming_attention.slices import Holding
from streaming_attention.workload import Workload

WORKLOAD = Workload("x", heads=6, kv_heads=2, queries=13, keys=29, causal=True)


def tokens(runs) -> list[int]:
    return [token for start, stop in runs for token in range(start, stop)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 40])
def test_every_token_is_held_once(strategy, ranks):
    held = [holding_of(strategy, WORKLOAD, rank, ranks) for rank in range(ranks)]
    assert sorted(token for one in held for token in tokens(one.keys)) == list(range(29))
    if strategy == "spread":
        assert all(tokens(one.queries) == list(range(13)) for one in held)
    else:
        assert sorted(token for one in held for token in tokens(one.queries)) == list(range(13))
    for one in held:
        assert tokens(one.queries) == sorted(tokens(one.queries))
        assert (one.query_count, one.key_count) == (len(tokens(one.queries)), len(tokens(one.keys)))


def test_auto_holds_what_its_strategy_needs():
    found = streaming(WORKLOAD, 1, 2, 1, strategy="auto")
    assert found in [holding_of(strategy, WORKLOAD, 1, 2) for strategy in STRATEGIES]
    assert streaming(WORKLOAD, 0, 2, 1, strategy="zigzag", block=64) == holding_of("zigzag", WORKLOAD, 0, 2)


def test_the_whole_is_one_run_of_each():
    assert Holding.whole(WORKLOAD) == holding_of("spread", WORKLOAD, 0, 1) == holding_of("ring", WORKLOAD, 0, 1)


@pytest.mark.parametrize("heads, kv_heads", [(6, 2), (8, 8), (8, 1), (10, 2), (12, 3), (1, 1)])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 16])
def test_heads_of_all_ranks_are_all_heads_each_with_its_own_keys(heads, kv_heads, ranks):
    workload, group, computed = Workload("x", heads=heads, kv_heads=kv_heads), heads // kv_heads, []
    for rank in range(ranks):
        share = Heads.of_rank(workload, rank, ranks)
        for (a, b), (c, d) in share.calls():
            assert (b - a) % (d - c) == 0
            for head in range(a, b):
                used = share.keys[0] + c + (head - a) // ((b - a) // (d - c))
                assert used == (share.queries[0] + head) // group
                computed.append(share.queries[0] + head)
    assert computed == list(range(heads))


def test_heads_are_shared_out_evenly():
    counts = [slices.key_slice(10, rank, 4) for rank in range(4)]
    assert [Heads.of_rank(Workload("x", heads=10, kv_heads=2), rank, 4).queries for rank in range(4)] == counts
