# The campaign that the config describes, and what the rules share. Only light imports: every job of a cluster parses this.

import functools
import json
import os
import re
import sys
from pathlib import Path

import yaml

# The package is found without being installed (in a conda environment, in the jobs' processes), and `python` in a rule is
# the one that runs Snakemake unless an environment of the rule's own comes before it.
KERNELS = str(Path(workflow.basedir, "kernels"))
sys.path.insert(0, KERNELS)
for name, first in (("PYTHONPATH", KERNELS), ("PATH", str(Path(sys.executable).parent))):
    os.environ[name] = os.pathsep.join(filter(None, [first, os.environ.get(name)]))

from streaming_attention.campaign import specs
from streaming_attention.campaign.config import ConfigError, load_config
from streaming_attention.campaign.figures import FIGURES
from streaming_attention.campaign.handover import hand_over, machine_of_controller
from streaming_attention.campaign.plan import make_plan
from streaming_attention.campaign.point import spec as point_spec
from streaming_attention.campaign.sizing import job_size
from streaming_attention.campaign.tables import TABLES
from streaming_attention.machine.layout import Layout
from streaming_attention.models import tensor_bytes
from streaming_attention.registry import METHODS
from streaming_attention.sources import sources_of as package_sources
from streaming_attention.triton.gpu import triton_version


def as_typed(value):
    """A value of --config with its type: inside of braces and brackets Snakemake leaves all scalars as text."""
    if isinstance(value, dict):
        return {key: as_typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_typed(inner) for inner in value]
    if not isinstance(value, str):
        return value
    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, value, (True, False))
    is_text = tag.rpartition(":")[2] not in ("int", "float", "bool", "null")
    return value if is_text else loader.construct_object(yaml.ScalarNode(tag, value))


def load_campaign():
    """The campaign of config.yaml or, alone, of the file that --configfile names; --config lays single keys over it."""
    files = workflow.config_settings.configfiles or [Path("config.yaml")]
    if len(files) > 1:
        sys.exit("--configfile: names several files, which are not merged; allowed: one file")
    try:
        campaign = load_config(
            os.path.relpath(files[0]),
            overrides=as_typed(dict(workflow.config_settings.config)),
            machine=machine_of_controller(),
        )
        make_plan(campaign).check_budget()
        return campaign
    except ConfigError as error:
        sys.exit(str(error))


CAMPAIGN = load_campaign()
hand_over(CAMPAIGN.machine)
PLAN = make_plan(CAMPAIGN)
RESULTS = f"results/{CAMPAIGN.name}"
PLAN_TABLE = f"{RESULTS}/plan.csv"
POINTS = {point.id: point for point in CAMPAIGN.points}
LAYOUTS = {layout.slug: layout for layout in CAMPAIGN.layouts}
SECONDS = {row.id: row.predicted_seconds for row in PLAN.rows}

PLACE = {
    name: value
    for name, value in (("slurm_partition", CAMPAIGN.partition), ("constraint", CAMPAIGN.constraint))
    if value
}
"""Where jobs go, if the config says so: the profile's partition counts otherwise."""

LAUNCHER = "mpiexec -n {ranks}"
"""What starts several ranks; a profile says otherwise with set-resources: launcher."""


wildcard_constraints:
    point="[A-Za-z0-9_-]+",
    layout="[a-z0-9-]+",
    method="[a-z0-9_]+",
    dtype="[a-z0-9]+",
    mode="threads|ranks",


def as_json(spec):
    """A job's description as one argument of its command."""
    return json.dumps(spec, sort_keys=True)


def as_rst(text):
    """Text that reStructuredText shows as it is: on one line, every character that could be markup escaped."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(text.split()))


@functools.cache
def sources_of(*methods):
    """Files that decide what the methods compute, relative to here: a clone elsewhere is the same workflow."""
    return sorted({os.path.relpath(path) for method in methods for path in METHODS[method].sources()})


@functools.cache
def digest_of(*methods):
    """What those files hold, for ``params``: files that a copy or an archive brings along may look older than results."""
    return {method: METHODS[method].digest() for method in methods}


@functools.cache
def modules_of(*names):
    """Files of modules of the package and of what they import: what is made by them is made again when they change."""
    return sorted(os.path.relpath(path) for path in package_sources(f"streaming_attention.{name}" for name in names))


def choices_of(point):
    """The methods that will run at a point; the others are recorded there with their reason."""
    return [choice for choice in point.methods if choice.label in CAMPAIGN.feasible(point)]


def point_methods(wildcards):
    """Names of the methods that will run at a point, as arguments of the functions above."""
    return sorted({choice.method for choice in choices_of(POINTS[wildcards.point])})


def point_gates(wildcards):
    """What must have been judged before a point is measured."""
    point = POINTS[wildcards.point]
    mode = "ranks" if point.layout.ranks > 1 else "threads"
    return [f"{RESULTS}/gate/{method}-{point.workload.dtype}-{mode}.json" for method in point_methods(wildcards)]


def point_bytes(wildcards):
    """Memory of one rank: tensors twice (they are refilled and checked), and the largest workspace."""
    point = POINTS[wildcards.point]
    workspaces = [
        METHODS[choice.method].workspace_bytes(point.workload, point.layout, choice.options)
        for choice in choices_of(point)
    ]
    return 2 * tensor_bytes(point.workload, point.layout.ranks) + max(workspaces)


def gate_spec(wildcards):
    return specs.gate_spec(CAMPAIGN, wildcards.method, wildcards.dtype, wildcards.mode)


def ceiling_modules(wildcards):
    """The network is probed where there are several ranks."""
    alone = LAYOUTS[wildcards.layout].ranks == 1
    return modules_of("bandwidth.stream", "bandwidth.gemm", *([] if alone else ["bandwidth.network"]))


def half_a_node(wildcards):
    """Memory of one rank for STREAM, whose arrays are 4 times caches that only the node itself knows."""
    return CAMPAIGN.machine.memory_bytes // 2 // LAYOUTS[wildcards.layout].ranks_per_node


def job_resources(layout_of, seconds_of=lambda wildcards: 150, bytes_of=lambda wildcards: 0):
    """Resources of a rule that starts ranks, each as a function of its wildcards."""

    @functools.cache
    def size(layout, seconds, rank_bytes):
        return job_size(layout, CAMPAIGN.machine, seconds, rank_bytes)

    def resource(name):
        return lambda wildcards: size(layout_of(wildcards), seconds_of(wildcards), bytes_of(wildcards))[name]

    names = ("mpi", "nodes", "tasks", "cpus_per_task", "mem_mb", "limit", "runtime", "slurm_extra")
    return {name: resource(name) for name in names} | PLACE
