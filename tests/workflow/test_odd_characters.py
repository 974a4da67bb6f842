"""Text of the user's is data: no shell, no markup and no path pattern ever acts on it."""

import shutil

from project import TINY, changed

ODD = "it's $(touch pwned) `touch pwned` & {x} *"


def assert_harmless(project) -> None:
    assert not [path for path in project.tree.parent.rglob("*") if path.name == "pwned"]


def test_the_name_of_a_config_file(finished):
    project = finished.beside("odd name", TINY)
    (project.work / "config.yaml").rename(project.work / f"{ODD}.yaml")
    text = project.snakemake("plan", "--configfile", f"{ODD}.yaml").stdout
    assert ODD in text
    assert_harmless(project)


def test_the_path_of_a_comparison(finished):
    project = finished.beside("odd path")
    folder = ODD.replace("{x}", "")  # Snakemake has no word for braces in paths, so the schema refuses them
    (project.work / folder).mkdir()
    shutil.copy(project.results / "tables/measurements.csv", project.work / folder)
    compared = [{"name": "before", "measurements": f"{folder}/measurements.csv"}]
    project.configure(changed(TINY, report__compare=compared))
    assert set(project.due("compare")) == {"compare_campaigns", "compare"}
    project.snakemake("compare")
    verdicts = (project.results / "compare/before.csv").read_text()
    assert "same" in verdicts
    assert "<table" in (project.results / "compare/before.html").read_text()
    assert_harmless(project)


def test_the_folder_of_the_project(finished):
    """The tiny campaign of all tests runs in a folder with spaces, quotes and shell words."""
    assert "$(touch pwned)" in str(finished.tree)
    assert_harmless(finished)
