"""Configs from file to points, and one clear line about every way to get one wrong."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming_attention.campaign.config import ConfigError, load_config
from streaming_attention.machine.topology import Machine, TopologyError

LAPTOP = Machine(cores_per_socket=2, memory_gib=8)
SERVER = Machine(sockets_per_node=2, cores_per_socket=32, memory_gib=256)

BASE = {
    "campaign": "trial",
    "workloads": {"query": {"queries": 1}, "prefill": {"heads": 8, "kv_heads": 2, "causal": True}},
    "sweeps": {
        "threads": {
            "workload": ["query", "prefill"],
            "keys": [64, 128],
            "layout": {"ranks": 1, "threads": [1, 2]},
            "methods": ["naive", {"streaming": {"block": [16, 32]}}],
        }
    },
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the base config with changes: dotted keys to values, ``...`` removes a key."""
    monkeypatch.chdir(tmp_path)

    def load(changes=None, machine=LAPTOP, overrides=None):
        data = copy.deepcopy(BASE)
        for path, value in (changes or {}).items():
            *above, last = path.split(".")
            target = data
            for key in above:
                target = target.setdefault(key, {})
            if value is ...:
                del target[last]
            else:
                target[last] = value
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
        return load_config("config.yaml", overrides, machine=machine)

    return load


def names_of(points):
    return [(p.workload.name, p.workload.keys, p.layout.threads, p.repeat) for p in points]


def test_the_base_is_a_product(load):
    campaign = load()
    assert len(campaign.points) == 8 and campaign.infeasible == ()
    assert names_of(campaign.points)[:3] == [("query", 64, 1, 0), ("query", 64, 2, 0), ("query", 128, 1, 0)]
    assert campaign.points[0].labels == ("naive", "streaming block=16", "streaming block=32")
    assert campaign.machine is LAPTOP and campaign.name == "trial"
    assert [layout.slug for layout in campaign.layouts] == ["n1s1r1t1", "n1s1r1t2"]


def test_fields_of_workloads(load):
    query, prefill = (load().point(load().points[index].id).workload for index in (0, 4))
    assert (query.queries, query.heads, query.kv_heads, query.head_dim, query.dtype) == (1, 1, 1, 128, "fp32")
    assert (prefill.queries, prefill.heads, prefill.kv_heads, prefill.causal) == (64, 8, 2, True)


def test_a_sweep_can_vary_any_field(load):
    sweep = {"sweeps.threads.workload": "prefill", "sweeps.threads.keys": 64, "sweeps.threads.kv_heads": [1, 8]}
    campaign = load({**sweep, "sweeps.threads.causal": [True, False], "sweeps.threads.queries": 3})
    shapes = {(p.workload.kv_heads, p.workload.causal, p.workload.queries) for p in campaign.points}
    assert shapes == {(1, True, 3), (1, False, 3), (8, True, 3), (8, False, 3)}


def test_keys_may_stand_in_the_workload(load):
    changes = {"sweeps.threads.keys": ..., "workloads.query.keys": 32, "workloads.prefill.keys": 16}
    assert {(p.workload.name, p.workload.keys) for p in load(changes).points} == {("query", 32), ("prefill", 16)}


def test_keys_of_a_rank_grow_the_problem_with_the_ranks(load):
    layout = {"ranks": [1, 2, 4], "threads": 1}
    changes = {f"{SWEEP}.keys": ..., f"{SWEEP}.keys_per_rank": [64], f"{SWEEP}.layout": layout}
    points = load({**changes, f"{SWEEP}.methods": "streaming"}, machine=SERVER).points
    found = {(p.workload.name, p.layout.ranks, p.workload.queries, p.workload.keys) for p in points}
    query, prefill = ({("query", n, 1, 64 * n) for n in (1, 2, 4)}, {("prefill", n, 64 * n, 64 * n) for n in (1, 2, 4)})
    assert found == query | prefill


def test_zip(load):
    changes = {"sweeps.threads.zip": [["keys", "threads"]]}
    assert names_of(load(changes).points) == [
        ("query", 64, 1, 0),
        ("query", 128, 2, 0),
        ("prefill", 64, 1, 0),
        ("prefill", 128, 2, 0),
    ]


def test_exclude_takes_points_or_methods(load):
    exclude = [{"workload": "prefill", "threads": [1, 2], "keys": 128}, {"method": "naive", "workload": "prefill"}]
    campaign = load({"sweeps.threads.exclude": exclude})
    assert ("prefill", 128, 1, 0) not in names_of(campaign.points) and len(campaign.points) == 6
    for point in campaign.points:
        assert ("naive" in point.labels) is (point.workload.name == "query")


def test_a_point_without_methods_is_none(load):
    exclude = [{"method": ["naive", "streaming"], "keys": 64}]
    assert {p.workload.keys for p in load({"sweeps.threads.exclude": exclude}).points} == {128}


def test_repeats_come_after_one_another(load):
    campaign = load({"protocol": {"repeats": 2}})
    assert [p.repeat for p in campaign.points] == [0] * 8 + [1] * 8
    assert "rep1" in campaign.points[-1].id


def test_two_sweeps_that_meet_make_one_point(load):
    again = {"workload": "query", "keys": 64, "methods": ["streaming", "gemm", "naive"], "repeats": 2}
    campaign = load({"sweeps.again": again})
    first, second = (point for point in campaign.points if names_of([point])[0][:3] == ("query", 64, 1))
    assert first.labels == ("naive", "gemm", "streaming", "streaming block=16", "streaming block=32")
    assert second.labels == ("naive", "gemm", "streaming") and second.repeat == 1
    assert campaign.origins[first.id] == ("threads", "again") and campaign.origins[second.id] == ("again",)


def test_the_order_of_sweeps_and_methods_leaves_no_trace(load):
    again = {"workload": "query", "keys": 64, "methods": ["gemm"]}
    forth = load({"sweeps.again": again})
    back = load({"sweeps": {"again": again, "threads": BASE["sweeps"]["threads"]}})
    assert {p.id: p for p in forth.points} == {p.id: p for p in back.points}


def test_powers_grow_with_the_machine(load):
    changes = {"sweeps.threads.layout": {"ranks": "powers", "threads": ["all"]}}
    on_laptop = {p.layout.slug for p in load(changes).points}
    on_server = {p.layout.slug for p in load(changes, SERVER).points}
    assert on_laptop == {"n1s1r1t2", "n1s1r2t1"}
    assert on_server == {"n1s1r1t32", "n1s2r1t32", "n1s2r2t16", "n1s2r4t8", "n1s2r8t4", "n1s2r16t2", "n1s2r32t1"}


def test_a_machine_can_be_described(load):
    described = {"nodes": 2, "cores_per_socket": 4, "memory_gib": 1.5}
    campaign = load({"machine": described, "sweeps.threads.layout": {"nodes": "powers"}})
    assert campaign.machine == Machine(cores_per_socket=4, memory_gib=1.5, nodes=2)
    assert {p.layout.nodes for p in campaign.points} == {1, 2}


def test_a_described_machine_gives_the_same_points_as_the_detected_one(load):
    described = load({"machine": SERVER.as_config()}, machine=LAPTOP)
    assert described.machine == SERVER and described.points == load(machine=SERVER).points


def test_auto_is_this_machine(load, monkeypatch):
    monkeypatch.setattr("streaming_attention.campaign.config.this_machine", lambda: SERVER)
    assert load(machine=None).machine is SERVER


def test_a_machine_that_cannot_be_read(load, monkeypatch):
    def unreadable():
        raise TopologyError("no CPU")

    monkeypatch.setattr("streaming_attention.campaign.config.this_machine", unreadable)
    with pytest.raises(ConfigError, match='machine is "auto", but no CPU; allowed: a mapping'):
        load(machine=None)


def test_more_threads_than_cores_is_infeasible_and_stays_in_the_campaign(load):
    campaign = load({"sweeps.threads.layout.threads": [2, 3]})
    assert {p.layout.threads for p in campaign.points} == {2}
    assert {p.layout.threads for p in campaign.infeasible} == {3}
    point = campaign.infeasible[0]
    assert campaign.feasible(point) == () and campaign.point(point.id) is point
    assert all("3 threads don't fit" in reason for reason in campaign.reasons[point.id].values())


def test_scores_beyond_memory_stop_one_method_of_a_point(load):
    changes = {"sweeps.threads.workload": "prefill", "sweeps.threads.keys": 65536, "workloads.prefill": {}}
    campaign = load(changes)
    for point in campaign.points:
        assert campaign.feasible(point) == ("streaming block=16", "streaming block=32")
        assert "GiB" in campaign.reasons[point.id]["naive"]


def test_overrides_come_before_the_check(load):
    campaign = load(overrides={"campaign": "other", "protocol": {"repeats": 3}, "sweeps": {"threads": {"keys": [7]}}})
    assert campaign.name == "other" and {p.workload.keys for p in campaign.points} == {7}
    assert len(campaign.points) == 4 * 3
    with pytest.raises(ConfigError, match=r"config.yaml with what the command line sets: protocol.repeats is 0"):
        load(overrides={"protocol": {"repeats": 0}})


SWEEP = "sweeps.threads"
WRONG = [
    # (changes, key path, problem, a word of what is allowed)
    ({"swepes": {}}, "swepes", "is not a known key (did you mean sweeps?)", "workloads"),
    ({"x y\n": 1}, '"x y\\n"', "is not a known key", "campaign"),
    ({"sweeps": ...}, "sweeps", "is missing", "at least one named sweep"),
    ({"sweeps": {}}, "sweeps", "is {}", "at least one"),
    ({"sweeps": None}, "sweeps", "is null", "at least one"),
    ({"workloads": []}, "workloads", "is []", "at least one named workload"),
    ({"workloads": {"a b": {}}}, 'workloads."a b"', "is not a usable name", "letters"),
    ({"workloads": {"é": {}}}, "workloads.é", "is not a usable name", "letters"),
    ({"sweeps": {"$(reboot)": BASE["sweeps"]["threads"]}}, 'sweeps."$(reboot)"', "is not a usable name", "letters"),
    ({"campaign": "../x"}, "campaign", 'is "../x"', "letters"),
    ({"campaign": ""}, "campaign", 'is ""', "letters"),
    ({"campaign": "x" * 41}, "campaign", "is ", "at most 40"),
    ({"campaign": "name\n"}, "campaign", "is ", "letters"),
    ({"campaign": 3}, "campaign", "is 3", "letters"),
    ({"machine": "automatic"}, "machine", 'is "automatic"', "auto, slurm or a mapping"),
    ({"machine": {"cores_per_socket": 2}}, "machine.memory_gib", "is missing", "above 0"),
    ({"machine": {**LAPTOP.as_config(), "core": 2}}, "machine.core", "is not a known key", "cores_per_socket"),
    ({"machine": {**LAPTOP.as_config(), "nodes": 0}}, "machine.nodes", "is 0", "at least 1"),
    ({"machine": {**LAPTOP.as_config(), "memory_gib": -1}}, "machine.memory_gib", "is -1", "above 0"),
    ({"machine": {**LAPTOP.as_config(), "memory_gib": float("nan")}}, "machine.memory_gib", "is NaN", "above 0"),
    ({"machine": {**LAPTOP.as_config(), "memory_gib": float("inf")}}, "machine.memory_gib", "is Infinity", "above 0"),
    ({"protocol": {"max_sample": 5}}, "protocol.max_sample", "did you mean max_samples?", "warmup"),
    ({"protocol": {"warmup": "2"}}, "protocol.warmup", 'is "2"', "integer"),
    ({"protocol": {"warmup": 2.0}}, "protocol.warmup", "is 2.0", "integer"),
    ({"protocol": {"warmup": True}}, "protocol.warmup", "is true", "integer"),
    ({"protocol": {"repeats": 0}}, "protocol.repeats", "is 0", "integer"),
    ({"protocol": {"cache": "warm"}}, "protocol.cache", 'is "warm"', "hot, cold"),
    ({"protocol": {"relative_half_width": 0}}, "protocol.relative_half_width", "is 0", "above 0"),
    ({"protocol": {"confidence": 95}}, "protocol.confidence", "is 95", "0.999"),
    ({"protocol": {"max_seconds": 0}}, "protocol.max_seconds", "is 0", "above 0"),
    ({"protocol": {"min_samples": 9, "max_samples": 8}}, "protocol.max_samples", "is 8", "at least min_samples, 9"),
    ({"workloads.query.heads": 0}, "workloads.query.heads", "is 0", "at least 1"),
    ({"workloads.query.head": 2}, "workloads.query.head", "did you mean heads?", "head_dim"),
    ({"workloads.query.causal": "yes"}, "workloads.query.causal", 'is "yes"', "true or false"),
    ({"workloads.query.dtype": "fp64"}, "workloads.query.dtype", 'is "fp64"', "fp32"),
    ({"workloads.query.keys": [1, 2]}, "workloads.query.keys", "is [1, 2]", "integer"),
    ({"workloads.prefill.kv_heads": 3}, "workloads.prefill.kv_heads", "is 3", "a divisor of the 8 heads"),
    ({f"{SWEEP}.kyes": 5}, f"{SWEEP}.kyes", "did you mean keys?", "workload, batch"),
    ({f"{SWEEP}.methods": ...}, f"{SWEEP}.methods", "is missing", "method"),
    ({f"{SWEEP}.keys": ...}, f"{SWEEP}.keys", "is missing, and workloads.query has none", "integer"),
    ({f"{SWEEP}.keys_per_rank": 64}, f"{SWEEP}.keys_per_rank", "stands beside keys", "either keys, or keys_per_rank"),
    (
        {f"{SWEEP}.keys": ..., f"{SWEEP}.keys_per_rank": [2**40]},
        f"{SWEEP}.keys_per_rank",
        "is 1099511627776, for which",
        "8 GiB",
    ),
    ({f"{SWEEP}.keys": []}, f"{SWEEP}.keys", "is []", "non-empty list"),
    ({f"{SWEEP}.keys": [64, 0]}, f"{SWEEP}.keys[1]", "is 0", "at least 1"),
    ({f"{SWEEP}.keys": [64, -5]}, f"{SWEEP}.keys[1]", "is -5", "at least 1"),
    ({f"{SWEEP}.keys": 64.5}, f"{SWEEP}.keys", "is 64.5", "integer"),
    ({f"{SWEEP}.keys": "64"}, f"{SWEEP}.keys", 'is "64"', "integer"),
    ({f"{SWEEP}.keys": ["1K"]}, f"{SWEEP}.keys[0]", 'is "1K"', "integer"),
    ({f"{SWEEP}.keys": {"from": 1}}, f"{SWEEP}.keys", 'is {"from": 1}', "integer"),
    ({f"{SWEEP}.keys": [64, 2**40]}, f"{SWEEP}.keys[1]", "is 1099511627776, for which", "8 GiB"),
    ({f"{SWEEP}.kv_heads": [1, 3], f"{SWEEP}.heads": 4}, f"{SWEEP}.kv_heads[1]", "is 3", "a divisor of the 4 heads"),
    ({f"{SWEEP}.heads": [4, 7]}, "workloads.prefill.kv_heads", "is 2", "a divisor of the 7 heads"),
    ({f"{SWEEP}.dtype": ["fp32", "fp8"]}, f"{SWEEP}.dtype[1]", 'is "fp8"', "fp32, bf16, fp16"),
    ({f"{SWEEP}.workload": ["query", "prefil"]}, f"{SWEEP}.workload[1]", "did you mean prefill?", "query, prefill"),
    ({f"{SWEEP}.workload": []}, f"{SWEEP}.workload", "is []", "non-empty list"),
    ({f"{SWEEP}.layout": 4}, f"{SWEEP}.layout", "is 4", "mapping"),
    ({f"{SWEEP}.layout.threads": 0}, f"{SWEEP}.layout.threads", "is 0", "at least 1"),
    ({f"{SWEEP}.layout.threads": [1, 0]}, f"{SWEEP}.layout.threads[1]", "is 0", "at least 1"),
    ({f"{SWEEP}.layout.threads": []}, f"{SWEEP}.layout.threads", "is []", "powers"),
    ({f"{SWEEP}.layout.threads": "power"}, f"{SWEEP}.layout.threads", 'is "power"', "powers"),
    ({f"{SWEEP}.layout.binding": "core"}, f"{SWEEP}.layout.binding", 'is "core"', "cores, none"),
    ({f"{SWEEP}.layout.nodes": 2}, f"{SWEEP}.layout.ranks", "stands beside nodes", "either ranks, or nodes"),
    ({f"{SWEEP}.layout.rank": 2}, f"{SWEEP}.layout.rank", "did you mean ranks?", "threads"),
    ({f"{SWEEP}.methods": []}, f"{SWEEP}.methods", "is []", "non-empty list"),
    ({f"{SWEEP}.methods": ["streming"]}, f"{SWEEP}.methods[0]", "did you mean streaming?", "naive, gemm, streaming"),
    ({f"{SWEEP}.methods": [{"gem": None}]}, f"{SWEEP}.methods[0]", "did you mean gemm?", "naive, gemm"),
    ({f"{SWEEP}.methods": "flash"}, f"{SWEEP}.methods", 'is "flash"', "naive, gemm, streaming"),
    ({f"{SWEEP}.methods": [{"naive": {}, "gemm": {}}]}, f"{SWEEP}.methods[0]", "is {", "one method's name"),
    ({f"{SWEEP}.methods": [{"gemm": 7}]}, f"{SWEEP}.methods[0].gemm", "is 7", "a mapping of options"),
    ({f"{SWEEP}.methods": [7]}, f"{SWEEP}.methods[0]", "is 7", "a method's name"),
    ({f"{SWEEP}.methods": [{"streaming": {"blok": 16}}]}, f"{SWEEP}.methods[0].streaming.blok", "mean block?", "block"),
    ({f"{SWEEP}.methods": [{"naive": {"block": 16}}]}, f"{SWEEP}.methods[0].naive.block", "is not an option", "none"),
    (
        {f"{SWEEP}.methods": [{"streaming": {"block": 0}}]},
        f"{SWEEP}.methods[0].streaming.block",
        "is 0",
        "integer from",
    ),
    (
        {f"{SWEEP}.methods": [{"streaming": {"block": [64, "x"]}}]},
        f"{SWEEP}.methods[0].streaming.block[1]",
        'is "x"',
        "integer from",
    ),
    ({f"{SWEEP}.methods": [{"streaming": {"block": []}}]}, f"{SWEEP}.methods[0].streaming.block", "is []", "non-empty"),
    (
        {f"{SWEEP}.zip": [["keys", "threads", "workload"]], f"{SWEEP}.keys": [1]},
        f"{SWEEP}.zip[0]",
        "keys has 1",
        "equally",
    ),
    ({f"{SWEEP}.zip": [["keys"]]}, f"{SWEEP}.zip[0]", 'is ["keys"]', "two or more"),
    ({f"{SWEEP}.zip": ["keys", "threads"]}, f"{SWEEP}.zip[0]", 'is "keys"', "two or more"),
    ({f"{SWEEP}.zip": [["keys", "heads"]]}, f"{SWEEP}.zip[0][1]", 'is "heads"', "workload, keys"),
    ({f"{SWEEP}.zip": [["keys", "tokens"]]}, f"{SWEEP}.zip[0][1]", 'is "tokens"', "threads"),
    ({f"{SWEEP}.zip": [["keys", "keys"]]}, f"{SWEEP}.zip[0][1]", "names keys again", "once"),
    ({f"{SWEEP}.zip": [["keys", "threads"], ["threads", "workload"]]}, f"{SWEEP}.zip[1][0]", "again", "once"),
    (
        {f"{SWEEP}.zip": [["keys", "threads"]], f"{SWEEP}.layout.threads": ["powers", 2]},
        f"{SWEEP}.zip[0][1]",
        "has powers",
        "written out",
    ),
    ({f"{SWEEP}.exclude": {"keys": 1}}, f"{SWEEP}.exclude", 'is {"keys": 1}', "a list of mappings"),
    ({f"{SWEEP}.exclude": [{}]}, f"{SWEEP}.exclude[0]", "is {}", "mapping"),
    ({f"{SWEEP}.exclude": [{"key": 1}]}, f"{SWEEP}.exclude[0].key", "did you mean keys?", "threads"),
    ({f"{SWEEP}.exclude": [{"keys": "64"}]}, f"{SWEEP}.exclude[0].keys", 'is "64"', "integer"),
    ({f"{SWEEP}.exclude": [{"method": "gemm"}]}, f"{SWEEP}.exclude[0].method", 'is "gemm"', "naive, streaming"),
    ({f"{SWEEP}.exclude": [{"workload": "decode"}]}, f"{SWEEP}.exclude[0].workload", "decode", "query, prefill"),
    ({f"{SWEEP}.exclude": [{"keys": [64, 128]}]}, "sweeps", "leave no point", "at least one point"),
    ({f"{SWEEP}.repeats": 0}, f"{SWEEP}.repeats", "is 0", "integer from 1"),
    (
        {f"{SWEEP}.keys": list(range(1, 1001)), f"{SWEEP}.layout.threads": list(range(1, 101))},
        SWEEP,
        "has 200000 combinations",
        "at most 100000",
    ),
    ({"report": {"title": ""}}, "report.title", 'is ""', "1 to 200"),
    ({"report": {"published": "no"}}, "report.published", 'is "no"', "true or false"),
    ({"report": {"compare": [{"name": "a"}]}}, "report.compare[0].measurements", "is missing", "a path"),
    ({"report": {"compare": [{"name": "a/b", "measurements": "x"}]}}, "report.compare[0].name", "a/b", "letters"),
    ({"report": {"compare": [{"name": "a", "measurements": "x"}] * 2}}, "report.compare[1].name", 'is "a"', "no other"),
]


@pytest.mark.parametrize(("changes", "key", "problem", "allowed"), WRONG, ids=[f"{w[1]} {w[2]}"[:60] for w in WRONG])
def test_what_is_wrong_is_said_in_one_line(load, changes, key, problem, allowed):
    with pytest.raises(ConfigError) as caught:
        load(changes)
    message = str(caught.value)
    assert message.startswith("config.yaml, line ") and "\n" not in message
    complaint, _, permitted = message.partition("; allowed: ")
    assert complaint.split(": ", 1)[1].startswith(f"{key} ") and problem in complaint
    assert allowed in permitted


def test_of_several_errors_the_first_in_the_file_is_told(load):
    with pytest.raises(ConfigError, match=r"workloads\.query\.heads is 0"):
        load({"workloads.query.heads": 0, f"{SWEEP}.keys": 0, "report": {"titel": 1}})


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "$(reboot); `id`", 'Größe 中 \u202e & "quoted"', "{wildcards}"]
)
def test_free_text_of_the_report_is_kept_as_it_is(load, text):
    report = load({"report": {"title": text, "description": text}}).report
    assert report["title"] == text and report["description"] == text


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["keys", "powers"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    "campaign", "machine", "protocol", "protocol.warmup", "workloads", "workloads.query", "workloads.query.heads",
    "sweeps", SWEEP, f"{SWEEP}.keys", f"{SWEEP}.layout", f"{SWEEP}.layout.threads", f"{SWEEP}.methods", f"{SWEEP}.zip",
    f"{SWEEP}.exclude", f"{SWEEP}.repeats", "report", "report.compare",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), JUNK)
def test_whatever_stands_anywhere_the_answer_is_a_campaign_or_a_config_error(tmp_path_factory, place, junk):
    data = copy.deepcopy(BASE)
    *above, last = place.split(".")
    target = data
    for key in above:
        target = target.setdefault(key, {})
    target[last] = junk
    path = tmp_path_factory.mktemp("junk") / "config.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    try:
        assert load_config(path, machine=LAPTOP).points is not None
    except ConfigError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
