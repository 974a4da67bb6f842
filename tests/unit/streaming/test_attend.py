from dataclasses import replace

import numpy as np
import pytest

from streaming_attention.inputs import make_inputs
from streaming_attention.slices import Holding
from streaming_attention.streaming import attend, schedule
from streaming_attention.workload import Workload

QUERY = Workload("query", heads=2, kv_heads=1, keys=5000, head_dim=16)
PREFILL = Workload("prefill", 2, 4, 2, 700, 300, 16, causal=True)
ODD = Workload("odd", 1, 3, 3, 33, 1500, 7, causal=True)


@pytest.mark.parametrize("workload", [QUERY, PREFILL, ODD], ids=lambda workload: workload.name)
def test_every_item_is_done_once(workload):
    part = attend.PartialAttention(make_inputs(workload, 1), 2, 128)
    heads, rows = part.peaks.shape
    items = heads * schedule.tiles(rows) * schedule.splits(heads, rows, workload.keys)
    assert sorted(part.order) == list(range(items))


def test_long_items_come_first():
    seen = np.arange(1, 5 * schedule.ROWS + 1)
    order = attend.longest_first(seen, heads=2, splits=1, keys=len(seen))
    tile = order % 5
    assert tile.tolist() == sorted(tile, reverse=True)


def test_splits_beyond_what_a_tile_sees_come_last():
    seen = np.full(4, schedule.SPLIT + 1)
    order = attend.longest_first(seen, heads=1, splits=3, keys=3 * schedule.SPLIT)
    assert order.tolist() == [0, 1, 2]


def test_a_query_is_split_over_keys_and_a_prefill_over_rows():
    assert schedule.splits(1, 1, 65536) == 65536 // schedule.SPLIT
    assert schedule.splits(16, 4096, 4096) == 1
    assert schedule.splits(1, 1, 0) == 1


@pytest.mark.parametrize("key_start, key_stop", [(0, 9), (0, 4), (4, 9), (9, 9), (3, 3)])
def test_seen_keys_of_a_slice(key_start, key_stop):
    workload = Workload("x", heads=4, kv_heads=2, queries=5, keys=9, head_dim=4, causal=True)
    inputs = make_inputs(workload, 1, Holding(((0, 5),), ((key_start, key_stop),)))
    expected = [sum(key_start <= j < key_stop and j <= i + 4 for j in range(9)) for i in range(5)]
    assert attend.seen_keys(inputs).tolist() == 2 * expected
    everything = replace(inputs, workload=replace(workload, causal=False))
    assert attend.seen_keys(everything).tolist() == 10 * [key_stop - key_start]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("block", [16, 128])
@pytest.mark.parametrize("workload", [QUERY, PREFILL, ODD], ids=lambda workload: workload.name)
def test_workspace_is_what_is_allocated(workload, block, threads):
    inputs = make_inputs(workload, 1)
    part = attend.PartialAttention(inputs, threads, block)
    arrays = [part.state, part._lse, part.seen, part.order]
    if part._parts[0].shape[0] > 1:
        arrays += part._parts
    scratch = threads * block * 4
    allocated = sum(array.nbytes for array in arrays) - part.output.nbytes + scratch
    assert schedule.workspace(workload, threads, block=block) == allocated


def test_workspace_over_ranks_holds_one_state_more():
    alone = schedule.workspace(PREFILL, 1, block=128)
    spread = schedule.workspace(PREFILL, 1, block=128, ranks=2)
    assert spread - alone == 2 * 4 * 700 * (16 + 2) * 4


def test_workspace_grows_with_length_not_with_its_square():
    sizes = [schedule.workspace(replace(PREFILL, queries=t, keys=t), 8, block=128) for t in (2**14, 2**15, 2**16)]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.01)
    assert sizes[2] < 2**16 * 4 * 2 * 40


def test_threads_beyond_the_pool_are_an_error():
    with pytest.raises(ValueError, match="threads: 1000"):
        attend.PartialAttention(make_inputs(QUERY, 1), 1000, 128)
