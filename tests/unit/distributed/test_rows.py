"""Rows to which blocks of keys are added, in this process: as good as all keys at once, whatever the blocks."""

import numpy as np
import pytest
from problems import assert_right

from streaming_attention.distributed import pieces
from streaming_attention.distributed.holdings import holding_of
from streaming_attention.distributed.masks import Mask
from streaming_attention.distributed.pieces import chunk_of
from streaming_attention.distributed.rows import Rows
from streaming_attention.inputs import make_inputs
from streaming_attention.workload import Workload

PREFILL = Workload("x", 2, 4, 2, 150, 150, 64, causal=True)


def compute(workload: Workload, holdings, mine, threads: int = 1):
    """Rows of one rank with the blocks of all."""
    whole = make_inputs(workload, 1)
    inputs = make_inputs(workload, 1, mine)
    out, lse = np.full_like(inputs.q, np.nan), np.full(inputs.q.shape[:3], np.nan, np.float32)
    chunk = chunk_of(inputs.q.shape, workload.kv_heads, workload.keys, threads)
    rows = Rows(Mask.of(workload), inputs.q, out, lse, mine.queries, chunk, inputs.scale, threads, {})
    blocks = [make_inputs(workload, 1, held) for held in holdings]
    stages = [stage for block in blocks for stage in rows.add(block.k, block.v, block.holding.keys, "block")]
    stages += rows.close()
    for stage in stages:
        stage.run()
    return out, lse, whole, stages


@pytest.mark.parametrize("strategy", ["ring", "zigzag"])
@pytest.mark.parametrize("chunked", [False, True])
def test_blocks_add_up(strategy, chunked, monkeypatch):
    if chunked:
        monkeypatch.setattr(pieces, "CHUNK_FLOPS", 1)
        monkeypatch.setattr(pieces, "CHUNK_ROWS", 32)
    holdings = [holding_of(strategy, PREFILL, rank, 3) for rank in range(3)]
    for rank, mine in enumerate(holdings):
        order = [holdings[(rank - step) % 3] for step in range(3)]
        out, lse, whole, stages = compute(PREFILL, order, mine)
        places = [token for start, stop in mine.queries for token in range(start, stop)]
        assert_right(out, lse, whole.q, whole.k, whole.v, causal=True, rows=places)
        assert chunked == (len(stages) > (6 if strategy == "zigzag" else 3))


def test_rows_that_see_nothing_are_cleared():
    workload = Workload("x", 1, 2, 1, 40, 9, 16, causal=True)
    holdings = [holding_of("ring", workload, rank, 2) for rank in range(2)]
    out, lse, *_ = compute(workload, holdings, holdings[0])
    assert not out.any()
    assert (lse == -np.inf).all()
