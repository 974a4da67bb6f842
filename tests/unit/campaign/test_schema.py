"""The schema: it is one, it holds the defaults, and it stays in step with the classes that the values go into."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from streaming_attention.campaign.config import SCHEMA, load_config
from streaming_attention.campaign.document import ConfigError, Document
from streaming_attention.campaign.point import FEWEST_SAMPLES, NOT_OF_A_JOB
from streaming_attention.campaign.protocol import FEWEST_SAMPLES as FEWEST_OF_THE_SAMPLER
from streaming_attention.campaign.protocol import Protocol
from streaming_attention.campaign.schema import check, read_schema, with_defaults
from streaming_attention.campaign.sweep import KEYS_PER_RANK, LAYOUT_AXES, WORDS, WORKLOAD_AXES
from streaming_attention.dtypes import DTYPES
from streaming_attention.machine.layout import BINDINGS
from streaming_attention.machine.topology import Machine
from streaming_attention.workload import Workload

ROOT = Path(__file__).parents[3]
DEFINITIONS = json.loads(SCHEMA.read_text())["$defs"]


def defaults(definition: str) -> dict:
    properties = DEFINITIONS[definition]["properties"]
    return {name: part["default"] for name, part in properties.items() if "default" in part}


def dataclass_defaults(cls) -> dict:
    return {field.name: field.default for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}


def names(definition: str) -> list[str]:
    return list(DEFINITIONS[definition]["properties"])


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


def test_errors_have_words_for_every_part():
    """A part of the schema that can fail says what it allows: a title, its values, or alternatives that do."""
    for path, part in parts(json.loads(SCHEMA.read_text()), "schema"):
        assert {"title", "enum", "const", "anyOf", "$ref"} & part.keys(), path


def parts(schema: dict, path: str):
    yield path, schema
    for keyword in ("properties", "$defs"):
        for name, part in schema.get(keyword, {}).items():
            yield from parts(part, f"{path}.{name}")
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(keyword), dict):
            yield from parts(schema[keyword], f"{path}.{keyword}")
    for position, part in enumerate(schema.get("anyOf", ())):
        yield from parts(part, f"{path}.anyOf[{position}]")


def test_protocol_in_step():
    fields = [field.name for field in dataclasses.fields(Protocol)]
    assert sorted(names("protocol")) == sorted([*fields, *NOT_OF_A_JOB])
    assert {name: value for name, value in defaults("protocol").items() if name in fields} == dataclass_defaults(
        Protocol
    )
    assert set(defaults("protocol")) == set(names("protocol"))
    assert FEWEST_SAMPLES == FEWEST_OF_THE_SAMPLER


def test_workload_in_step():
    assert sorted(["name", *names("workload")]) == sorted(field.name for field in dataclasses.fields(Workload))
    known = dataclass_defaults(Workload)
    assert all(known[name] == value for name, value in defaults("workload").items())
    assert DEFINITIONS["dtype"]["enum"] == list(DTYPES)


def test_machine_in_step():
    assert names("machine") == list(Machine(2, 8.0).as_config())
    known = dataclass_defaults(Machine)
    assert all(known[name] == value for name, value in defaults("machine").items())


def test_sweep_in_step():
    axes = ["workload", *WORKLOAD_AXES, *LAYOUT_AXES]
    every = [*axes[: axes.index("keys") + 1], KEYS_PER_RANK, *axes[axes.index("keys") + 1 :]]
    assert sorted(WORKLOAD_AXES) == sorted(names("workload"))
    assert sorted(LAYOUT_AXES) == sorted(DEFINITIONS["sweep"]["properties"]["layout"]["properties"])
    assert DEFINITIONS["axis"]["enum"] == every
    assert names("pattern") == [*axes, "method"]
    assert DEFINITIONS["amount"]["anyOf"][1]["enum"] == list(WORDS)
    assert DEFINITIONS["binding"]["enum"] == list(BINDINGS)


def test_defaults_are_valid_themselves():
    minimal = {"workloads": {"query": {}}, "sweeps": {"all": {"workload": "query", "keys": 1, "methods": "naive"}}}
    schema = read_schema(SCHEMA)
    filled = with_defaults(minimal, schema, schema)
    check(Document("filled", filled, {}), schema)
    assert filled["protocol"] == defaults("protocol")
    assert filled["sweeps"]["all"]["layout"] == {"threads": 1, "binding": "cores"}
    assert filled["report"]["compare"] == []


def test_defaults_leave_what_is_given_and_the_original_alone():
    schema = read_schema(SCHEMA)
    value = {"protocol": {"warmup": 9}, "machine": {"cores_per_socket": 4, "memory_gib": 2}, "workloads": {"w": {}}}
    filled = with_defaults(value, schema, schema)
    assert filled["protocol"]["warmup"] == 9 and filled["protocol"]["seed"] == 1
    assert filled["machine"]["nodes"] == 1 and filled["workloads"]["w"]["head_dim"] == 128
    assert value["protocol"] == {"warmup": 9} and value["workloads"] == {"w": {}}


@pytest.mark.parametrize(
    "path", [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))], ids=lambda p: p.name
)
def test_every_config_of_the_project_loads(path):
    campaign = load_config(path, machine=Machine(cores_per_socket=2, memory_gib=16))
    assert campaign.points and campaign.name == yaml.safe_load(path.read_text())["campaign"]


def test_without_the_schema_the_error_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        read_schema(tmp_path / "nowhere.json")
