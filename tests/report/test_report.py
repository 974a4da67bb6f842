"""The report as a reader meets it: figures and tables are there and render, links lead somewhere, nothing complains."""

import base64
import csv
import io
import json
import re
from urllib.parse import unquote

import pytest

from project import TINY
from streaming_attention.campaign.figures import FIGURES


@pytest.fixture(params=["html", "zip"])
def page(request, report, browser):
    browser.open(report[request.param])
    browser.errors()
    browser.open(report[request.param])
    return browser


def results(page) -> dict:
    return json.loads(page.run("return JSON.stringify(results)"))


def by_category(page, category: str) -> list[tuple[str, str]]:
    """(subcategory, path) of a category's results."""
    found = json.loads(page.run("return JSON.stringify(categories)"))[category]
    return [(subcategory, path) for subcategory, paths in found.items() for path in paths]


def buttons_of(page, label: str):
    """The eye (shows a result) and the i (describes it) of an entry of the list."""
    return page.find_all(f"//nav//tbody/tr[td[1][text()='{label}']]/td[last()]//a")


def test_the_landing_page_tells_what_was_measured(page):
    text = page.find("//div[contains(@class, 'prose')]").text
    assert TINY["report"]["title"] in text
    assert TINY["report"]["description"] in " ".join(text.split())
    assert page.errors() == []


def test_odd_characters_of_the_config_are_text(page):
    """The title and the description hold tags, quotes, markup and shell words; none of them did anything."""
    assert page.find_all("//div[contains(@class, 'prose')]//*[self::script or self::b or self::img or self::em]") == []
    assert page.run("return window.pwned") is None


def test_every_figure_renders(page, tmp_path):
    shown = {}
    for subcategory, path in by_category(page, "Figures"):
        (label,) = results(page)[path]["labels"].values()
        page.choose("Figures", subcategory)
        page.wait(lambda label=label: (found := buttons_of(page, label)) and page.clicked(found[0]))
        source = results(page)[path]["data_uri"]
        image = page.find(f"//img[@src='{source}']")
        shown[label] = page.wait(lambda image=image: page.run("return arguments[0].naturalWidth", image))
        page.screenshot(tmp_path / f"{label}.png")
    assert sorted(shown) == sorted(FIGURES.values())
    assert min(shown.values()) > 300
    assert page.errors() == []


def opened(page, label, source):
    """The frame that shows a table; a click on its button that the page missed while it redrew is repeated."""
    frames = [frame for frame in page.find_all("//iframe") if frame.get_attribute("src").endswith(source)]
    if not frames and (buttons := buttons_of(page, label)):
        page.clicked(buttons[0])
    return next(iter(frames), None)


def test_every_table_renders(page, tmp_path):
    tables = by_category(page, "Tables")
    for subcategory, path in tables:
        (label,) = results(page)[path]["labels"].values()
        page.choose("Tables", *([subcategory] if len({name for name, _ in tables}) > 1 else []))
        source = results(page)[path]["data_uri"]
        page.driver.switch_to.frame(page.wait(lambda label=label, source=source: opened(page, label, source)))
        rows = page.wait(lambda: page.find_all("//table//tr"))
        page.driver.switch_to.default_content()
        page.screenshot(tmp_path / f"{label}.png")
        assert len(rows) > 1, path
    assert {"best.html", "machine.html", "status.html"} <= {path.rpartition("/")[2] for _, path in tables}
    assert page.errors() == []


def test_every_caption_names_rule_inputs_records_and_log(page):
    for subcategory, path in by_category(page, "Figures"):
        result = results(page)[path]
        (label,) = result["labels"].values()
        page.choose("Figures", subcategory)
        page.wait(lambda label=label: (found := buttons_of(page, label)) and page.clicked(found[1]))
        caption = page.find("//nav//li[contains(@class, 'prose')]").text
        name = path.rpartition("/")[2].removesuffix(".svg")
        assert f"draw_{name}" in caption
        assert "tables/summary.csv" in caption
        assert "results/tiny/records" in caption
        assert f"results/tiny/logs/draw_{name}/{name}.log" in caption


def test_every_link_of_the_texts_leads_somewhere(page):
    """Links of the landing page and of captions are calls into the report, to a result or a category that exists."""
    known, categories = results(page), page.run("return Object.keys(categories)")
    texts = [page.run("return workflow_desc"), *(result["caption"] for result in known.values())]
    targets = [target for text in texts for target in re.findall(r'href="([^"]*)"', text)]
    assert targets
    for target in targets:
        call = re.fullmatch(r"javascript:app\.(showResultInfo|showCategory)\('(.*)'\)", target)
        assert call, target
        assert unquote(call[2]) in (known if call[1] == "showResultInfo" else categories)


def test_a_link_of_the_landing_page_works_when_clicked(page):
    page.find("//div[contains(@class, 'prose')]//a[contains(@href, 'showResultInfo')]").click()
    assert page.find("//nav//li[text()='Size']")
    assert page.errors() == []


def test_data_beside_a_figure_are_its_rows(page, finished):
    paths = [path for subcategory, path in by_category(page, "Data") if subcategory == "Figures"]
    assert len(paths) == len(FIGURES)
    for path in paths:
        uri = results(page)[path]["data_uri"]
        on_disk = (finished.work / path).read_text()
        if uri.startswith("data:"):
            assert base64.b64decode(uri.partition(";base64,")[2]).decode() == on_disk
        assert "record" in next(csv.reader(io.StringIO(on_disk)))


def test_nothing_is_loaded_from_elsewhere(page):
    loaded = page.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in loaded if not name.startswith(("data:", "file:"))] == []


def test_the_other_panels_open(page):
    for item in ("Workflow", "Statistics", "About"):
        page.choose(item)
    assert page.errors() == []
