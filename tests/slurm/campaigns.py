"""Campaigns for a virtual cluster, run as a user does: Snakemake on the login node with the shipped profile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from rig import Rig

from project import ROOT, Project

IMPATIENT = {
    "--slurm-init-seconds-before-status-checks": "9",
    "--seconds-between-status-checks": "9",
    "--latency-wait": "5",
}
"""Waiting for the first look at a job would be most of a test."""

HURRIED = Path(__file__).with_name("snakemake_in_a_hurry.py")
PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
LAUNCHER = PROFILE["set-resources"]["measure_attention"]["launcher"]

POINT = "results/rig/records/query-b1-h1x1-q1-k128-d32-full-fp32-{layout}-rep0.json"


def resources(launcher: str = LAUNCHER.strip("'"), **others) -> list[str]:
    """Words that change resources of points; a command line's set-resources replace all of the profile's."""
    changes = {"launcher": repr(launcher)} | others
    return ["--set-resources", *(f"measure_attention:{name}={value}" for name, value in changes.items())]


def config(nodes: int = 4, **sweeps) -> dict:
    """Tiny points on nodes of two sockets with a core each; one point on one core unless sweeps are given."""
    one = {"workload": "query", "keys": 128, "layout": {"ranks": 1, "threads": 1}, "methods": ["streaming"]}
    return {
        "campaign": "rig",
        "machine": {"nodes": nodes, "sockets_per_node": 2, "cores_per_socket": 1, "memory_gib": 3.9},
        "protocol": {"warmup": 1, "min_samples": 3, "max_samples": 4, "max_seconds": 0.2, "repeats": 1},
        "workloads": {"query": {"queries": 1, "head_dim": 32}},
        "sweeps": {name: one | sweep for name, sweep in (sweeps or {"one": {}}).items()},
        "report": {"published": False},
    }


class ClusterProject(Project):
    """A checkout on the shared file system of a cluster."""

    rig: Rig

    @property
    def environment(self) -> dict:
        """Compiled code is shared by all nodes and copies: on a real cluster every node has its own."""
        return super().environment | {"NUMBA_CACHE_DIR": str(self.rig.folder / "numba")}

    def command(self, *arguments: str) -> list[str]:
        profile = ["--profile", str(self.tree / "profiles/slurm"), "--nocolor"]
        hurry = [word for pair in IMPATIENT.items() for word in pair]
        return [
            sys.executable,
            str(HURRIED),
            "--snakefile",
            str(self.tree / "Snakefile"),
            *profile,
            *hurry,
            *arguments,
        ]

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        """Start Snakemake; its output goes to ``output``, whole or in part."""
        with open(self.output, "w") as stream:
            options = {"env": self.environment, "stdout": stream, "stderr": stream} | options
            return self.rig.popen(self.command(*arguments), cwd=self.work, **options)

    def snakemake(self, *arguments: str, check: bool = True, timeout: float = 400, **options):
        process = self.start(*arguments, **options)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            print(self.output.read_text())
            raise
        text = self.output.read_text()
        assert code == 0 or not check, text
        return subprocess.CompletedProcess(process.args, code, text, text)

    @property
    def output(self) -> Path:
        return self.work / "snakemake.txt"

    @property
    def results(self) -> Path:
        return self.work / "results" / "rig"
