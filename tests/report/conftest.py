"""The tiny campaign's report, as one page and as an archive, and a browser to read it."""

import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def report(finished) -> dict[str, Path]:
    """Pages to open by kind: ``html`` holds everything, ``zip`` has its results in files beside it."""
    folder = finished.work / "results"
    for kind in ("html", "zip"):
        finished.snakemake("--report", f"results/report.{kind}")
    with zipfile.ZipFile(folder / "report.zip") as archive:
        archive.extractall(folder / "unpacked")
    return {"html": folder / "report.html", "zip": folder / "unpacked" / "report" / "report.html"}


@pytest.fixture(scope="package")
def browser(tmp_path_factory):
    """Gone before the other tests: an open page keeps a tenth of a core busy."""
    pytest.importorskip("selenium")
    from browser import Browser, find_programs

    program, driver = find_programs()
    if not (program and driver):
        pytest.skip("no browser: install chromium and chromium-driver (Debian) for the tests of the report")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()
