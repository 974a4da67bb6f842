"""envs/: the lock is exact and enough, and the conda files say the same as the lock."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_ROOTS = {
    "measure": [*PROJECT["dependencies"], *EXTRAS["mpi"], *EXTRAS["bf16"], "mpich", "jsonschema"],
    "report": [*PROJECT["dependencies"], "jsonschema", "pandas", "matplotlib"],
}


def read_pins(lines) -> dict[str, str]:
    """Exact pins by canonical name; fails on anything looser and on a package pinned twice."""
    pins = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        name, operator, version = line.partition("==")
        assert operator and version, f"not an exact pin: {line}"
        assert canonicalize_name(name) not in pins, f"pinned twice: {line}"
        pins[canonicalize_name(name)] = version
    return pins


LOCK = read_pins((ROOT / "envs/lock.txt").read_text().splitlines())
TEST = read_pins((ROOT / "envs/test.txt").read_text().splitlines())


def closure(requirements) -> set[str]:
    """Names of the requirements and of all that they require, as installed here."""
    found, pending = set(), [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(needed)
    return found


def test_the_lock_satisfies_the_project():
    extras = PROJECT["optional-dependencies"]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras["campaign"], *extras["mpi"]]):
        assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)]), requirement


def test_the_lock_builds_the_package():
    with (ROOT / "pyproject.toml").open("rb") as stream:
        (builder,) = tomllib.load(stream)["build-system"]["requires"]
    assert Requirement(builder).specifier.contains(LOCK["setuptools"])


def test_the_lock_is_complete():
    missing = closure([f"{name}=={version}" for name, version in LOCK.items()]) - set(LOCK)
    assert missing == set()


def test_the_tests_add_to_the_lock_and_change_nothing_of_it():
    assert not set(TEST) & set(LOCK)
    assert closure(TEST) <= set(TEST) | set(LOCK)


def test_this_environment_is_the_locked_one():
    installed = {name: metadata.version(name) for name in LOCK | TEST}
    assert installed == LOCK | TEST


@pytest.mark.parametrize("name", CONDA_ROOTS)
def test_a_conda_file_pins_what_the_lock_pins(name):
    dependencies = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]
    (wheels,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert read_pins(wheels) == {package: LOCK[package] for package in closure(CONDA_ROOTS[name])}


@pytest.mark.parametrize("name", CONDA_ROOTS)
def test_a_conda_file_has_a_python_that_the_package_supports(name):
    dependencies = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]
    (python,) = [Requirement(entry.replace(" =", "==")) for entry in dependencies if str(entry).startswith("python ")]
    (version,) = python.specifier
    assert version.version in Requirement(f"python{PROJECT['requires-python']}").specifier
