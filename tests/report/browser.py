"""A headless Chromium that reads Snakemake's report as a person would: by its menus, buttons and links."""

from __future__ import annotations

import shutil
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1000",
)
WAIT_SECONDS = 20


def find_programs() -> tuple[str | None, str | None]:
    """The browser and its driver, None for what is not installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")


class Browser:
    """One page of a report in a fresh profile."""

    def __init__(self, profile: Path):
        program, driver = find_programs()
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))

    def close(self) -> None:
        self.driver.quit()

    def open(self, page: Path) -> None:
        self.driver.get(page.resolve().as_uri())
        self.wait(lambda: self.run("return typeof app === 'object' && typeof results === 'object'"))

    def run(self, script: str, *arguments):
        """The value of some JavaScript."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition):
        """The condition's value as soon as it is true."""
        return WebDriverWait(self.driver, WAIT_SECONDS).until(lambda _: condition())

    def find(self, xpath: str) -> WebElement:
        return self.wait(lambda: next(iter(self.driver.find_elements(By.XPATH, xpath)), None))

    def find_all(self, xpath: str) -> list[WebElement]:
        return self.driver.find_elements(By.XPATH, xpath)

    def choose(self, *items: str) -> None:
        """Follow menu items from the home menu on, such as a category and its subcategory.

        A click on a menu that is just drawn anew may get lost: it is made again until the next item is there.
        """
        last = "//nav//ol//a"
        self.click(last)
        for item in items:
            following = f"//nav//a[span[text()={quoted(item)}]]"
            self.wait(lambda last=last, following=following: self.find_all(following) or self.click_again(last))
            self.click(following)
            last = following

    def click_again(self, xpath: str) -> None:
        for element in self.find_all(xpath)[:1]:
            self.clicked(element)

    def click(self, xpath: str) -> None:
        """Click as soon as nothing lies over the element: menus move while they open."""
        self.wait(lambda: self.clicked(self.find(xpath)))

    def clicked(self, element: WebElement) -> bool:
        """Whether a click reached the element, and not another one above it."""
        try:
            element.click()
        except (ElementClickInterceptedException, StaleElementReferenceException):
            return False
        return True

    def errors(self) -> list[dict]:
        """What the console has complained about since the last call; the report's own style sheet warns, always."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] not in ("WARNING", "INFO", "DEBUG")]

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))


def quoted(text: str) -> str:
    """A string for XPath, which has no escapes."""
    return f'"{text}"' if '"' not in text else f"'{text}'"
