"""A real headless Chromium, and the page of a made-up finished demo."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import example
import pytest

from cgh_bench.site import page

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1360,900",
    "--force-prefers-reduced-motion",  # no smooth scrolling under the clicks
)


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    with example.few_scenes():
        example.make(root)
    return root


@pytest.fixture(scope="session")
def written(workspace: Path) -> Path:
    with example.few_scenes():
        return page.write("animals", workspace / "results.jsonl", workspace, workspace / "report" / "index.html")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """One browser with an empty profile."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver; Debian and Ubuntu: apt install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.support.wait import WebDriverWait

    class Chrome(webdriver.Chrome):
        """`get` returns once the page's scripts have run: on a busy machine the driver returns before that."""

        def get(self, url: str) -> None:
            super().get(url)
            here = "location.href.split(/[?#]/)[0] === new URL(arguments[0]).href.split(/[?#]/)[0]"
            loaded = f"return {here} && document.readyState === 'complete'"
            WebDriverWait(self, 30).until(lambda driver: driver.execute_script(loaded, url))

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def chromium(browser):
    """The browser as it started: an empty page of the window's own size, in the light scheme, nothing logged."""
    browser.get("about:blank")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    return browser
