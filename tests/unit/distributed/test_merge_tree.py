import pytest

from streaming_attention.distributed.spread import relatives


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 6, 7, 8, 13, 16])
def test_every_rank_reaches_rank_0_once(ranks):
    tree = {rank: relatives(rank, ranks) for rank in range(ranks)}
    assert tree[0][1] is None
    assert all(parent is not None and parent < rank for rank, (_, parent) in tree.items() if rank)
    for rank, (children, _) in tree.items():
        assert children == sorted(other for other in tree if tree[other][1] == rank)


@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8, 9, 16])
def test_rounds_are_logarithmic(ranks):
    assert len(relatives(0, ranks)[0]) == (ranks - 1).bit_length()


def test_neighbours_meet_first():
    assert relatives(0, 8) == ([1, 2, 4], None)
    assert relatives(4, 8) == ([5, 6], 0)
    assert relatives(6, 8) == ([7], 4)
    assert relatives(7, 8) == ([], 6)
