"""Config files as data with lines: what is not YAML, what is given twice, and what the command line lays over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_attention.campaign.document import ConfigError, key_path, read_document, show


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return "config.yaml"

    return write


def failure(path, overrides=None) -> str:
    with pytest.raises(ConfigError) as caught:
        read_document(path, overrides)
    message = str(caught.value)
    assert "\n" not in message and "allowed: " in message and message.startswith("config.yaml")
    return message


def test_every_value_knows_its_line(write):
    document = read_document(write("a:\n  b: [1,\n      2]\nc: {d: 3}\n"))
    assert document.data == {"a": {"b": [1, 2]}, "c": {"d": 3}}
    assert [document.line(keys) for keys in (("a",), ("a", "b", 0), ("a", "b", 1), ("c", "d"))] == [1, 2, 3, 4]
    assert document.line(("a", "b", 7)) == 2, "the list's line stands for what isn't there"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2", "is not YAML"),
        ("a: 1\n\tb: 2\n", "line 2, column 1", "is not YAML"),
        ("a: b: c\n", "line 1, column 5", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "line 2", "is not YAML"),
        ("a: !!python/object:os.system x\n", "line 1", "is not YAML"),
        ("a: &x [*x]\n", "line 1", "alias"),
        ("a: *nowhere\n", "line 1", "nowhere"),
        ("a: 2026-13-45\n", "line 1", "month"),
        (b"a: \x00\n", "", "is not YAML"),
        (b"a: \xff\n", "", "not UTF-8"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1", "a is given twice, first in line 1"),
        ("x:\n  {a: 1, b: 2, a: 3}\n", "line 2", "x.a is given twice, first in line 2"),
        ("x: [{a: 1, 'a': 2}]\n", "line 1", "x[0].a is given twice"),
        ("x: {1: 2}\n", "line 1", "x has the key 1"),
        ("x: {on: 2}\n", "line 1", "x has the key on"),
        ("{[1, 2]: 3}\n", "line 1", "a list or mapping"),
        ("", "", "is null as a whole"),
        ("just words\n", "", 'is "just words" as a whole'),
        ("- 1\n", "", "is [1] as a whole"),
    ],
)
def test_what_is_not_a_config(write, text, where, what):
    message = failure(write(text))
    assert where in message and what in message


def test_files_that_are_not_there(write, tmp_path):
    assert "No such file" in failure("config.yaml")
    (tmp_path / "config.yaml").mkdir()
    assert "directory" in failure("config.yaml")


def test_merged_mappings_may_be_refined(write):
    document = read_document(write("base: &base {a: 1, b: 2}\nx:\n  <<: *base\n  a: 3\n"))
    assert document.data["x"] == {"a": 3, "b": 2}


def test_overrides_reach_into_mappings_and_replace_the_rest(write):
    path = write("a: {b: 1, c: [1, 2]}\nd: 5\n")
    document = read_document(path, {"a": {"c": [3], "e": {"f": 1}}, "d": {"g": 2}})
    assert document.data == {"a": {"b": 1, "c": [3], "e": {"f": 1}}, "d": {"g": 2}}
    assert "command line" in str(document.value_error(("a", "c", 0), 3, "4"))
    assert "line 1" in str(document.value_error(("a", "b"), 1, "4"))


def test_overrides_are_copied(write):
    given_list = [1]
    document = read_document(write("a: 1\n"), {"b": given_list})
    document.data["b"].append(2)
    assert given_list == [1]


def test_the_nearest_name_is_suggested(write):
    document = read_document(write("a: streming\n"))
    message = str(document.choice_error(("a",), "streming", ["naive", "streaming"]))
    assert message == 'config.yaml, line 1: a is "streming" (did you mean streaming?); allowed: naive, streaming'


def test_key_paths():
    assert key_path(("sweeps", "threads", "keys", 2)) == "sweeps.threads.keys[2]"
    assert key_path(("workloads", "a b", "x\n")) == 'workloads."a b"."x\\n"'


def test_long_values_are_shortened():
    assert len(show("x" * 1000)) == 60


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.text("abc", min_size=1, max_size=2), PLAIN, max_size=3)


@given(MAPPINGS)
def test_yaml_comes_back_as_it_was(tmp_path_factory, data):
    import yaml

    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    assert read_document(path).data == data


@given(MAPPINGS, MAPPINGS)
def test_overrides_win_and_leave_the_rest(tmp_path_factory, data, overrides):
    import yaml

    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    merged = read_document(path, overrides).data
    assert read_document(path, merged).data == merged, "laying the result over again changes nothing"
    for key in data.keys() | overrides.keys():
        source = overrides if key in overrides else data
        if not (isinstance(data.get(key), dict) and isinstance(overrides.get(key), dict)):
            assert merged[key] == source[key]
