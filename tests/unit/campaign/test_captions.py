"""Captions of the report: one for every figure and table, each names where its subject comes from."""

from pathlib import Path
from types import SimpleNamespace

import docutils.core
import jinja2
import pytest

from streaming_attention.campaign.figures import FIGURES
from streaming_attention.campaign.tables import TABLES

CAPTIONS = Path(__file__).parents[3] / "workflow" / "report"
DATA = ("measurements", "summary", "ceilings")
OTHERS = ("compare", "provenance")
TARGETS = ("Figures", "Tables", "Data", "Comparison", *(f"{name}.html" for name in TABLES))
LINKS = "\n\n" + "\n".join(f".. _{target}: javascript:show('{target}')" for target in TARGETS)
"""What Snakemake appends to every text of a report, so that it can link to categories and results."""


def named(**values) -> SimpleNamespace:
    return SimpleNamespace(**values)


def job(rule: str) -> SimpleNamespace:
    """What a caption sees of a job, with every name that the rules give."""
    folder = "results/workstation"
    return SimpleNamespace(
        rule=rule,
        input=named(
            measurements=f"{folder}/tables/measurements.csv",
            summary=f"{folder}/tables/summary.csv",
            ceilings=[f"{folder}/ceilings/{index}.json" for index in range(3)],
            records=[f"{folder}/records/{index}.json" for index in range(7)],
            environment=f"{folder}/environment.json",
            plan=f"{folder}/plan.csv",
            base="results/before/tables/measurements.csv",
            other=f"{folder}/tables/measurements.csv",
        ),
        output=named(svg="x.svg", csv="x.csv", page="x.html", rows="x.csv", trace="provenance.json"),
        wildcards=named(comparison="before"),
        log=[f"{folder}/logs/{rule}/x.log"],
        config={
            "campaign": "workstation",
            "folder": folder,
            "records": 7,
            "ceilings": 3,
            "machine": "1 node of 1 socket of 2 cores",
            "title": r"A \*title\*",
            "description": r"With \<b\>odd\<\/b\> \`characters\`\.",
        },
    )


def rendered(name: str, rule: str, categories=()) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string((CAPTIONS / f"{name}.rst").read_text() + LINKS)
    text = text.render(snakemake=job(rule), categories=categories, files=[])
    strict = {"report_level": 2, "halt_level": 2}  # a warning about the markup is an error
    page = docutils.core.publish_parts(text, writer="html", settings_overrides=strict)["html_body"]
    return " ".join(page.split())


@pytest.mark.parametrize("name", [*FIGURES, *TABLES, *DATA, *OTHERS])
def test_a_caption_says_what_how_and_whence(name):
    page = rendered(name, f"rule_of_{name}")
    for head in ("What it shows.", "How to read it.", "Where it comes from."):
        assert f"<strong>{head}</strong>" in page
    assert f"rule_of_{name}" in page and f"logs/rule_of_{name}/x.log" in page
    assert "{{" not in page and "}}" not in page


@pytest.mark.parametrize("name", FIGURES)
def test_the_caption_of_a_figure_names_inputs_records_and_sidecar(name):
    page = rendered(name, f"draw_{name}")
    for word in ("tables/measurements.csv", "7 records", "results/workstation/records", "x.csv"):
        assert word in page


def test_there_is_no_caption_without_its_subject():
    names = {path.stem for path in CAPTIONS.glob("*.rst")}
    assert names == {*FIGURES, *TABLES, *DATA, *OTHERS, "workflow"}


@pytest.mark.parametrize("categories", [[], [SimpleNamespace(name="Comparison")]])
def test_the_landing_page_shows_the_campaign_and_takes_text_as_text(categories):
    page = rendered("workflow", "", categories)
    assert "A *title*" in page and "<em>" not in page
    assert "With &lt;b&gt;odd&lt;/b&gt; `characters`." in page
    assert "1 node of 1 socket of 2 cores" in page and "workstation" in page
    assert ("joins this campaign with others" in page) == bool(categories)
    assert "problematic" not in page
