"""Snapshots are what the sources give."""

import pytest

from streaming_attention.triton import prebuilt
from streaming_attention.triton import specializations as known


def test_snapshots_were_made_from_these_sources():
    assert prebuilt.index()["sources"] == prebuilt.sources_digest(), "run python -m streaming_attention.triton.snapshot"


def test_every_specialization_is_shipped():
    assert all(prebuilt.read(specialization) for specialization in known.snapshots())


def test_no_snapshot_knows_where_it_was_made():
    assert not any("loc(" in prebuilt.read(specialization) for specialization in known.snapshots())


@pytest.mark.parametrize("specialization", [
    known.prefill("bf16", 64, True), known.prefill("fp32", 128, False, ragged=True), known.decode("fp32", 64, 1, True),
    known.decode("fp16", 128, 8, True, 64), known.merge("fp32", 32), known.backward("keys_gradient", "fp32", 64),
], ids=lambda each: each.name)  # fmt: skip
def test_snapshots_can_be_made_again(specialization):
    triton = pytest.importorskip("triton")
    from streaming_attention.triton.snapshot import MADE_WITH, generate

    if triton.__version__ != MADE_WITH:
        pytest.skip(f"snapshots are Triton {MADE_WITH}'s, this is {triton.__version__}")
    assert generate(specialization) == prebuilt.read(specialization)
