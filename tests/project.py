"""A checkout of its own for a test: the files as they would be cloned, and a working directory beside them."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PARTS = ("Snakefile", "workflow", "kernels", "profiles", "envs")

TINY = {
    "campaign": "tiny",
    "protocol": {"warmup": 1, "min_samples": 3, "max_samples": 4, "max_seconds": 0.2, "repeats": 1},
    "workloads": {
        "query": {"queries": 1, "head_dim": 32},
        "prefill": {"heads": 2, "kv_heads": 1, "head_dim": 32, "causal": True},
    },
    "sweeps": {
        "threads": {
            "workload": ["query", "prefill"],
            "keys": [64, 128],
            "layout": {"ranks": 1, "threads": [1, 2]},
            "methods": ["naive", "gemm", "streaming"],
        },
        "ranks": {"workload": "query", "keys": 128, "layout": {"ranks": 2, "threads": 1}, "methods": ["streaming"]},
    },
    "report": {
        "title": 'A <b>tiny</b> campaign & "more" $(touch pwned)',
        "description": "`touch pwned` *not* |emphasised|_ <img src=x onerror=window.pwned=1> </script> {{ 7*7 }} {x} ü",
        "published": True,
    },
}
"""Layouts 1x1, 1x2 (ranks x threads) and 2x1, every method, two lengths: all of the workflow, little of the time."""


class Project:
    """``tree`` is the checkout, ``work`` where Snakemake runs; copies of both stay beside each other.

    Snakemake remembers its inputs by the paths between the two, so a copy is the same workflow with its history.
    """

    def __init__(self, parent: Path):
        self.tree, self.work, self.cache = parent / "tree", parent / "work", parent / "cache"

    @classmethod
    def create(cls, parent: Path, config: dict = TINY) -> Project:
        """A fresh checkout with a config and without results."""
        project = cls(parent)
        for part in PARTS:
            source, target = ROOT / part, project.tree / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        project.work.mkdir()
        project.configure(config)
        return project

    def copy(self, parent: Path) -> Project:
        """The same checkout with the same results and history elsewhere, for tests that change its files."""
        project = type(self)(parent)
        shutil.copytree(self.tree, project.tree, dirs_exist_ok=True)
        shutil.copytree(self.work, project.work, dirs_exist_ok=True)
        return project

    def beside(self, name: str, config: dict | None = None) -> Project:
        """Another working directory for the same checkout, whose kernels are compiled already.

        It has the same results and history, or none of them and a config of its own.
        """
        project = type(self)(self.tree.parent)
        project.work = self.tree.parent / name
        if config is None:
            shutil.copytree(self.work, project.work)
        else:
            project.work.mkdir()
            project.configure(config)
        return project

    def configure(self, config: dict | str) -> None:
        text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (self.work / "config.yaml").write_text(text)

    def command(self, *arguments: str) -> list[str]:
        profile = ["--profile", str(self.tree / "profiles/local"), "--nocolor"]
        return [sys.executable, "-m", "snakemake", "--snakefile", str(self.tree / "Snakefile"), *profile, *arguments]

    @property
    def environment(self) -> dict:
        """Nothing of the user's: neither his Snakemake profile nor his caches."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE")}
        return kept | {"XDG_CACHE_HOME": str(self.cache)}

    def snakemake(self, *arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Run Snakemake in the working directory and wait for it; its output is text."""
        options = {"timeout": 400, "env": self.environment} | options
        done = subprocess.run(
            self.command(*arguments), cwd=self.work, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
        )
        if check:
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    def due(self, *arguments: str) -> dict[str, set[str]]:
        """What a run would do now: by rule, the wildcards of its jobs (empty text for a rule without)."""
        text = self.snakemake("--quiet", "host", "--dry-run", *arguments).stdout
        jobs: dict[str, set[str]] = {}
        for block in re.split(r"\n\s*\n|\n(?=\[)", text):
            rule = re.search(r"^(?:local)?rule (\w+):$", block, re.MULTILINE)
            if rule:
                wildcards = re.search(r"^ +wildcards: (.*)$", block, re.MULTILINE)
                jobs.setdefault(rule[1], set()).add(wildcards[1] if wildcards else "")
        return jobs

    @property
    def results(self) -> Path:
        return self.work / "results" / "tiny"

    def records(self) -> dict[str, dict]:
        """The attention records by id."""
        loaded = (json.loads(path.read_text()) for path in sorted(self.results.glob("records/*.json")))
        return {record["id"]: record for record in loaded}


def changed(config: dict, **paths) -> dict:
    """A copy of a config with some values replaced; ``sweeps__threads__keys=[64]`` reaches inside, None removes."""
    config = copy.deepcopy(config)
    for path, value in paths.items():
        *above, last = path.split("__")
        place = config
        for key in above:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return config
