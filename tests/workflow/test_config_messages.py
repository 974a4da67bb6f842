"""Bad input is refused before any job, with one message: file, key, value and what is allowed."""

import pytest

from project import TINY, Project, changed

WRONG = {
    "unknown key": (changed(TINY, protocol__warmups=3), ["protocol.warmups", "did you mean warmup?", "min_samples"]),
    "wrong type": (changed(TINY, protocol__warmup="two"), ["protocol.warmup", '"two"', "integer"]),
    "no threads": (changed(TINY, sweeps__ranks__layout__threads=0), ["sweeps.ranks.layout.threads", "is 0"]),
    "empty list": (changed(TINY, sweeps__threads__keys=[]), ["sweeps.threads.keys", "[]", "non-empty"]),
    "unknown method": (changed(TINY, sweeps__ranks__methods=["streming"]), ["sweeps.ranks.methods", "streaming"]),
    "unknown dtype": (changed(TINY, workloads__query__dtype="fp7"), ["workloads.query.dtype", '"fp7"', "fp32"]),
    "T not positive": (
        changed(TINY, sweeps__threads__keys=[64, -1]),
        ["sweeps.threads.keys[1]", "is -1", "at least 1"],
    ),
    "too much memory": (changed(TINY, sweeps__ranks__keys=10**12), ["sweeps.ranks.keys", "GiB"]),
    "a name that is a path": (changed(TINY, campaign="../../etc"), ["campaign", '"../../etc"', "letters"]),
    "not YAML": ("campaign: [tiny\nsweeps: {", ["line", "not YAML"]),
    "not a mapping": ("- campaign\n", ["mapping"]),
    "a key given twice": ("campaign: a\ncampaign: b\n", ["campaign", "twice"]),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project.create(tmp_path_factory.mktemp("messages"))


def refused(project: Project, *arguments: str) -> str:
    """The message of a run that is refused: one line, and nothing was done."""
    done = project.snakemake(*arguments, check=False)
    assert done.returncode == 1
    assert not (project.work / "results").exists()
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Using profile")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_config_is_refused_with_one_message(project, name):
    config, words = WRONG[name]
    project.configure(config)
    message = refused(project)
    assert message.startswith("config.yaml")
    assert all(word in message for word in [*words, "allowed: "]), message


def test_a_missing_config_is_refused(project):
    (project.work / "config.yaml").unlink()
    assert "config.yaml: can't be read" in refused(project)


def test_another_experiment_stands_alone(project):
    """Were it merged into config.yaml, it would measure that file's sweeps as well."""
    project.configure(changed(TINY, campaign="other", sweeps__threads=None))
    (project.work / "config.yaml").rename(project.work / "other.yaml")
    project.configure(TINY)
    assert len(project.due("--configfile", "other.yaml")["measure_attention"]) == 1


def test_the_command_line_sets_single_keys(project):
    project.configure(TINY)
    assert "protocol.warmup is 0" in refused(project, "--config", "protocol={warmup: 0}")
    fewer = project.due("--config", "sweeps={threads: {keys: [64]}}", "campaign=night")
    assert len(fewer["measure_attention"]) == 2 * 2 + 1


def test_several_experiments_are_not_merged(project):
    project.configure(TINY)
    (project.work / "second.yaml").write_text((project.work / "config.yaml").read_text())
    message = refused(project, "--configfile", "config.yaml", "second.yaml")
    assert "not merged" in message
