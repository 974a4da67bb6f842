"""A timeline is drawn with a clock that only the stages advance."""

import pytest

from streaming_attention.campaign.timeline import draw_timeline
from streaming_attention.prepared import COMMUNICATION, COMPUTE, Stage


class Pair:
    """A team of this rank and one that is twice as slow."""

    size, rank = 2, 0

    def __init__(self):
        self.barriers = 0

    def barrier(self):
        self.barriers += 1

    def gather(self, events):
        return [events, [{**event, "start": 2 * event["start"], "end": 2 * event["end"]} for event in events]]


@pytest.fixture
def drawn():
    now = [5.0]

    def lasting(seconds):
        return lambda: now.__setitem__(0, now[0] + seconds)

    stages = [
        (COMPUTE, lasting(0.5)),
        Stage(COMMUNICATION, lasting(1e-6), "look for block 1"),
        Stage(COMMUNICATION, lasting(0.25), "wait for block 1"),
        Stage(COMPUTE, lasting(0.25), "block 1"),
    ]
    team = Pair()
    timeline = draw_timeline(stages, team, lambda: now[0])
    assert team.barriers == 1
    return timeline


def test_stages_of_every_rank_in_order(drawn):
    assert [entry["rank"] for entry in drawn] == [0, 1]
    first = drawn[0]["stages"]
    assert [(stage["kind"], stage["label"]) for stage in first] == [
        ("compute", ""),
        ("communication", "wait for block 1"),
        ("compute", "block 1"),
    ]
    assert first[0]["start"] == 0
    assert first[-1]["end"] == pytest.approx(1.0, abs=1e-5)


def test_what_is_too_short_to_be_seen_still_counts(drawn):
    assert drawn[0]["compute"] == pytest.approx(0.75)
    assert drawn[0]["communication"] == pytest.approx(0.250001)


def test_a_rank_is_idle_until_the_slowest_ends(drawn):
    assert drawn[0]["idle"] == pytest.approx(1.000001)
    assert drawn[1]["idle"] == 0
