"""docs/guides/on-your-cluster.md, its blocks run word for word; only the profile's patience is shortened."""

import re
import shutil
import sys
from pathlib import Path

import yaml
from campaigns import IMPATIENT, ClusterProject

from project import ROOT

GUIDE = ROOT / "docs/guides/on-your-cluster.md"
PROFILE = Path("profiles/slurm/config.yaml")


def test_every_block_of_the_guide_works(cluster, tmp_path):
    project = ClusterProject.create(tmp_path)
    shutil.copytree(ROOT / "experiments", project.tree / "experiments")
    profile = yaml.safe_load((project.tree / PROFILE).read_text())
    profile |= {option.removeprefix("--"): int(value) for option, value in IMPATIENT.items()}
    (project.tree / PROFILE).write_text(yaml.safe_dump(profile))
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/streaming-attention"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streaming_attention "$@"\n')
    command.chmod(0o755)
    project.rig = cluster
    path = f"{command.parent}:{Path(sys.executable).parent}:{cluster.environment()['PATH']}"
    environment = project.environment | {"PATH": path, "PYTHONPATH": str(project.tree / "kernels")}
    said = {}
    for block in re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL):
        done = cluster.run("bash", "-ec", block, cwd=project.tree, env=environment, timeout=500)
        said[block] = done.stdout + done.stderr
    assert len(said) == 5
    first, plan, *_ = said.values()
    assert "machine: {nodes: 4, sockets_per_node: 2, cores_per_socket: 1" in first
    assert "2 points with 2 measurements" in plan
    results = project.tree / "results"
    assert (results / "first/figures/scaling.svg").is_file()
    assert (results / "first.html").stat().st_size > 10_000


def test_what_the_guide_names_is_there():
    text = GUIDE.read_text()
    for path in re.findall(r"`((?:experiments|profiles|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    assert "OVERHEAD" not in text
