"""The laws of sweeps: products multiply, zip groups advance together, exclusions only take away."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention.campaign.sweep import combine, matches

NAMES = "abcde"
AXES = st.dictionaries(
    st.sampled_from(NAMES), st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True), min_size=1
)
PATTERN_VALUES = st.integers(0, 20) | st.lists(st.integers(0, 20), min_size=1, max_size=5)


@given(AXES)
def test_a_product_has_every_combination_once(axes):
    found = list(combine(axes))
    assert len(found) == math.prod(map(len, axes.values()))
    assert len({tuple(fields.items()) for fields in found}) == len(found)
    for name, values in axes.items():
        assert {fields[name] for fields in found} == set(values)


@given(AXES)
def test_keys_keep_their_order_and_the_last_varies_fastest(axes):
    found = list(combine(axes))
    assert all(list(fields) == list(axes) for fields in found)
    ranks = [tuple(axes[name].index(fields[name]) for name in axes) for fields in found]
    assert ranks == sorted(ranks)


@given(AXES, st.lists(st.integers(), min_size=1, max_size=5), st.integers(2, 3))
def test_a_zip_group_counts_once(axes, values, size):
    group = ["x", "y", "z"][:size]
    joined = {name: [(name, value) for value in values] for name in group}
    found = list(combine({**axes, **joined}, [group]))
    assert len(found) == len(values) * math.prod(map(len, axes.values()))
    assert all(len({fields[name][1] for name in group}) == 1 for fields in found)


def test_a_zip_of_lists_that_are_apart():
    found = [tuple(fields.values()) for fields in combine({"a": [1, 2], "b": [5, 6], "c": [3, 4]}, [["a", "c"]])]
    assert found == [(1, 5, 3), (1, 6, 3), (2, 5, 4), (2, 6, 4)]


def test_unequal_lists_are_never_cut_short():
    with pytest.raises(ValueError):
        list(combine({"a": [1, 2], "b": [1]}, [["a", "b"]]))


@given(AXES, st.data())
def test_a_pattern_matches_where_all_its_keys_do(axes, data):
    pattern = data.draw(st.dictionaries(st.sampled_from(list(axes)), PATTERN_VALUES))
    for fields in combine(axes):
        by_hand = all(
            fields[name] in value if isinstance(value, list) else fields[name] == value
            for name, value in pattern.items()
        )
        assert matches(pattern, fields) is by_hand


@given(AXES, PATTERN_VALUES)
def test_more_keys_match_less(axes, value):
    first, *_ = axes
    for fields in combine(axes):
        assert matches({}, fields)
        if matches({first: value, **{name: values[0] for name, values in axes.items() if name != first}}, fields):
            assert matches({first: value}, fields)
