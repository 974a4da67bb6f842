"""Two campaigns side by side: verdicts, points of one side only, machines that differ."""

import copy

import factory
import pytest

from streaming_attention.campaign import compare
from streaming_attention.campaign.aggregate import aggregate, write_tables
from streaming_attention.campaign.record import seal
from streaming_attention.campaign.statistics import Interval
from streaming_attention.machine.layout import Layout


def measurements(seconds=1.0, campaign="base", noise=(1.0, 1.004, 0.996, 1.002, 0.998), repeats=2, keys=1024, **rank):
    """A table of one point; ``rank`` replaces facts about the ranks."""
    records = []
    for repeat in range(repeats):
        samples = [seconds * factor for factor in noise]
        entry = factory.entry("streaming", factory.query(keys), Layout(), samples=samples)
        record = copy.deepcopy(factory.attention(factory.query(keys), Layout(), [entry], repeat, campaign))
        record["environment"]["ranks"][0].update(rank)
        records.append(seal(record))
    return aggregate(records).measurements


def verdict(other, base=None) -> str:
    return compare.compare(measurements() if base is None else base, other).rows["verdict"].item()


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.5, "faster"), (0.93, "faster"), (1.0, "same"), (1.02, "same"), (1.1, "slower")]
)
def test_a_clear_difference_is_called_by_its_name(seconds, expected):
    assert verdict(measurements(seconds)) == expected


def test_noise_makes_it_ambiguous():
    assert verdict(measurements(1.04, noise=(0.8, 1.2, 0.9, 1.1, 1.0))) == "ambiguous"


def test_one_sample_decides_nothing():
    assert verdict(measurements(3.0, noise=(1.0,), repeats=1)) == "ambiguous"


def test_repeats_that_disagree_make_it_ambiguous():
    slow, fast = measurements(1.5, repeats=1), measurements(0.9, repeats=1)
    fast = fast.assign(record=fast["record"] + "-again")
    both = compare.pd.concat([slow, fast])
    assert verdict(both) == "ambiguous"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.80, 0.94, "faster"),
        (0.80, 0.96, "ambiguous"),
        (0.96, 1.04, "same"),
        (1.04, 1.06, "ambiguous"),
        (1.06, 1.30, "slower"),
        (0.50, 2.00, "ambiguous"),
        (0.0, float("inf"), "ambiguous"),
    ],
)
def test_the_verdict_follows_from_the_interval(low, high, expected):
    assert compare.judge(Interval((low + min(high, 3)) / 2, low, high), 0.05) == expected


def test_the_ratio_is_other_over_base_and_both_times_are_stated():
    row = compare.compare(measurements(2.0), measurements(1.0)).rows.iloc[0]
    assert row["ratio"] == pytest.approx(0.5)
    assert (row["base_milliseconds"], row["other_milliseconds"]) == (pytest.approx(2000.0), pytest.approx(1000.0))
    assert len(row["base_records"].split()) == 2


def test_points_of_one_side_are_listed_without_a_ratio():
    rows = compare.compare(measurements(keys=1024), measurements(keys=2048)).rows.set_index("keys")
    assert rows.loc[1024, "verdict"] == "only in base" and rows.loc[2048, "verdict"] == "only in other"
    assert rows["ratio"].isna().all()


def test_it_says_when_machines_differ():
    same, host = measurements(), measurements(host="elsewhere")
    other = measurements(cpu="Another & CPU")
    assert compare.describe_machines(same, same) == "The same machine: AMD EPYC 9B45 on n1."
    assert "different hosts: n1 against elsewhere" in compare.describe_machines(same, host)
    assert "The machines differ: AMD EPYC 9B45 against Another & CPU" in compare.describe_machines(same, other)
    page = compare.render_page(compare.compare(same, other))
    assert "The machines differ" in page and "Another &amp; CPU" in page


def test_all_of_it_is_written_and_repeats_bit_for_bit(tmp_path):
    tables = aggregate(factory.small_campaign())
    write_tables(tables, tmp_path)
    read = compare.read_measurements(tmp_path / "measurements.csv")
    for folder in ("one", "two"):
        comparison = compare.compare(read, tables.measurements, names=("last week", "<now>"))
        assert set(comparison.rows["verdict"]) <= {"same", "ambiguous"}
        assert (comparison.rows["ratio"] == 1.0).all()
        paths = [tmp_path / folder / name for name in ("x.csv", "x.html", "x.svg")]
        compare.write_comparison(comparison, *paths)
    for name in ("x.csv", "x.html", "x.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "x.html").read_text()
    assert "&lt;now&gt; against last week" in page and "<now>" not in page


def test_nothing_in_common_is_said_plainly():
    figure = compare.draw(compare.compare(measurements(keys=1024), measurements(keys=2048)))
    assert "no point in common" in figure.axes[0].texts[0].get_text()


def test_the_figure_shows_those_that_differ_most():
    many = [measurements(1.0 + 0.01 * step, keys=1024 + step, repeats=1) for step in range(compare.DRAWN_ROWS + 5)]
    base = [measurements(1.0, keys=1024 + step, repeats=1) for step in range(compare.DRAWN_ROWS + 5)]
    comparison = compare.compare(compare.pd.concat(base), compare.pd.concat(many))
    labels = [text.get_text() for text in compare.draw(comparison).axes[0].get_yticklabels()]
    assert len(labels) == compare.DRAWN_ROWS
    assert not any("T = 1K," in label for label in labels)


@pytest.mark.parametrize("tolerance", [0, -0.1, float("nan")])
def test_the_tolerance_must_be_positive(tolerance):
    with pytest.raises(ValueError, match="tolerance"):
        compare.compare(measurements(), measurements(), tolerance)


def test_a_file_that_is_no_measurement_table_is_named(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv: missing columns record"):
        compare.read_measurements(tmp_path / "other.csv")
