"""What a config says about a cluster: where its jobs go, and what they may cost."""

import pytest
import yaml

from streaming_attention.campaign import config
from streaming_attention.campaign.config import ConfigError, load_config
from streaming_attention.campaign.plan import make_plan
from streaming_attention.machine.slurm import SlurmMissing
from streaming_attention.machine.topology import Machine

NODES = Machine(nodes=4, sockets_per_node=2, cores_per_socket=8, memory_gib=64)
BASE = {
    "workloads": {"query": {"queries": 1, "keys": 64}},
    "sweeps": {"one": {"workload": "query", "layout": {"nodes": [1, 4], "threads": 1}, "methods": ["streaming"]}},
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(changes=None, machine=None):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(BASE | (changes or {})))
        return load_config("config.yaml", machine=machine)

    return load


@pytest.fixture
def asked(monkeypatch):
    """What SLURM is asked for; it answers with :data:`NODES`."""
    questions = []

    class Asked:
        def machine(self, partition, constraint):
            questions.append((partition, constraint))
            return NODES

    monkeypatch.setattr(config, "Cluster", Asked)
    return questions


@pytest.mark.parametrize(
    ("described", "question"),
    [
        ("slurm", (None, None)),
        ({"partition": "long"}, ("long", None)),
        ({"partition": "long", "constraint": "icelake"}, ("long", "icelake")),
    ],
)
def test_slurm_describes_the_machine(load, asked, described, question):
    campaign = load({"machine": described})
    assert campaign.machine == NODES
    assert asked == [question]
    assert (campaign.partition, campaign.constraint) == question


def test_jobs_see_the_machine_of_their_controller(load, asked):
    campaign = load({"machine": {"partition": "long"}}, machine=NODES)
    assert campaign.machine == NODES
    assert campaign.partition == "long"
    assert asked == []


def test_no_slurm_is_an_error_of_the_config(load, monkeypatch):
    def missing():
        raise SlurmMissing("sinfo: not on the path")

    monkeypatch.setattr(config, "Cluster", missing)
    with pytest.raises(ConfigError, match=r'machine is "slurm", but sinfo: not on the path; allowed: a mapping'):
        load({"machine": "slurm"})


def test_jobs_go_where_the_profile_says_otherwise(load):
    campaign = load({"machine": NODES.as_config()})
    assert (campaign.partition, campaign.constraint, campaign.budget) == (None, None, {})


@pytest.mark.parametrize("limit", [0, -1, "much"])
def test_a_budget_is_a_number_above_0(load, limit):
    with pytest.raises(ConfigError, match=r"budget\.node_hours is .*; allowed: a number above 0"):
        load({"budget": {"node_hours": limit}}, machine=NODES)


@pytest.mark.parametrize(
    ("name", "unit"), [("node_hours", "node-hours"), ("core_hours", "core-hours"), ("job_minutes", "job-minutes")]
)
def test_a_plan_beyond_its_budget_is_refused(load, name, unit):
    plan = make_plan(load({"budget": {name: 0.001}}, machine=NODES))
    with pytest.raises(ConfigError, match=rf"config.yaml: budget\.{name}: is 0.001, but the plan needs [\d.]+ {unit}"):
        plan.check_budget()


def test_a_plan_within_its_budget_is_not(load):
    make_plan(load({"budget": {"node_hours": 10, "core_hours": 100, "job_minutes": 60}}, machine=NODES)).check_budget()
    make_plan(load(machine=NODES)).check_budget()


def test_totals_tell_the_longest_job(load):
    plan = make_plan(load(machine=NODES))
    longest = max(row.predicted_seconds for row in plan.rows)
    assert plan.totals().longest_seconds == longest
    assert f"the longest job 0:{longest:02.0f} min" in str(plan.totals())
