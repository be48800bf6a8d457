"""The page in a real browser: it draws, opens, closes, fits, and neither complains nor calls out."""

import json
from itertools import pairwise
from pathlib import Path

import example
import pytest

from cgh_bench import results
from cgh_bench.site import page

pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def open_page(driver, path: Path) -> None:
    driver.get(path.as_uri())
    WebDriverWait(driver, 30).until(
        lambda d: d.execute_script(
            "return [...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
        )
    )


def requests(driver) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if url.startswith(("http", "ws", "file"))]


def find(driver, selector: str):
    return driver.find_elements(By.CSS_SELECTOR, selector)


def opened(driver):
    (popover,) = find(driver, ":popover-open")
    return popover


def emulate(driver, width: int, scheme: str = "light") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.fixture
def shown(browser, written: Path):
    """The page as it opens, in the light scheme; what a test opens on it, it closes. Drawing it takes a second."""
    if browser.current_url != written.as_uri():
        emulate(browser, 1360)
        open_page(browser, written)
    return browser


def test_it_shows_everything_without_a_complaint_or_a_request(chromium, written: Path) -> None:
    open_page(chromium, written)
    assert chromium.get_log("browser") == []
    assert requests(chromium) == [written.as_uri()]
    assert len(find(chromium, ".results button")) == 18
    assert len(find(chromium, ".small .main-svg:first-child")) == 6
    assert len(find(chromium, ".large .main-svg:first-child")) == 2
    assert len(find(chromium, ".query")) == 5
    assert len(find(chromium, ".scene")) == 8
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert chromium.execute_script(broken) == 0


def test_every_picture_and_chart_is_described(shown) -> None:
    assert [image for image in find(shown, "img") if not image.get_attribute("alt")] == []
    assert [plot for plot in find(shown, ".plot") if not plot.get_attribute("aria-label")] == []
    levels = [int(heading.tag_name[1]) for heading in find(shown, "main h1, main h2, main h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [element.get_attribute("id") for element in find(shown, "[id]")]
    assert len(ids) == len(set(ids))


def test_a_figure_opens_its_provenance_by_mouse_and_closes(shown) -> None:
    find(shown, ".results button")[0].click()
    popover = opened(shown)
    assert popover.find_element(By.TAG_NAME, "h3").text == "Random init kNN top-1"
    assert len(popover.find_elements(By.CSS_SELECTOR, ".runs tbody tr")) == 3
    assert not popover.find_element(By.TAG_NAME, "pre").is_displayed()
    popover.find_element(By.TAG_NAME, "summary").click()
    assert '"k": 20' in popover.find_element(By.TAG_NAME, "pre").text
    popover.find_element(By.CSS_SELECTOR, ".close").click()
    assert find(shown, ":popover-open") == []


def test_a_figure_opens_its_provenance_by_keyboard_and_gives_the_focus_back(shown) -> None:
    button = find(shown, ".results button")[7]
    button.send_keys(Keys.ENTER)
    assert shown.switch_to.active_element.get_attribute("aria-label") == "Close"
    shown.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert find(shown, ":popover-open") == []
    assert shown.switch_to.active_element == button


def test_the_first_tab_stop_skips_to_the_results(chromium, written: Path) -> None:
    chromium.get(written.as_uri())
    find(chromium, "body")[0].send_keys(Keys.TAB)
    assert chromium.switch_to.active_element.text == "Skip to the results"


def test_a_header_leads_to_its_protocol_and_opens_it(shown) -> None:
    assert find(shown, ".protocol[open]") == []
    find(shown, ".results thead a")[2].click()
    WebDriverWait(shown, 5).until(lambda d: find(d, ".protocol[open]"))
    (protocol,) = find(shown, ".protocol[open]")
    assert protocol.get_attribute("id").startswith("animals_det@")


def test_it_never_scrolls_sideways(chromium, written: Path) -> None:
    open_page(chromium, written)
    root = "document.documentElement"
    for width in (320, 390, 820, 1360):
        emulate(chromium, width)
        fits = f"return innerWidth === {width} && {root}.scrollWidth <= {root}.clientWidth"
        WebDriverWait(chromium, 10).until(lambda d, fits=fits: d.execute_script(fits), f"at {width}")  # charts redraw
        find(chromium, ".results button")[0].click()
        popover = opened(chromium)
        assert popover.rect["x"] >= 0, width
        assert popover.rect["x"] + popover.rect["width"] <= width
        popover.find_element(By.CSS_SELECTOR, ".close").click()


def test_a_table_with_holes_does_not_scroll_the_page_either(chromium, tmp_path: Path) -> None:
    written = page.write("animals", tmp_path / "results.jsonl", tmp_path, tmp_path / "index.html")
    emulate(chromium, 320)
    chromium.get(written.as_uri())
    assert chromium.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [320, 320]


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2 of an `rgb(…)`."""
    channels = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_contrast_in_both_schemes_which_charts_follow(chromium, written: Path) -> None:
    """At least 4.5:1, as WCAG 2.2 asks of text (1.4.3, level AA), charts included."""
    tick = "return getComputedStyle(document.querySelector('.ytick text')).fill"
    before = None
    for scheme in ("light", "dark"):
        emulate(chromium, 1360, scheme)
        if before is None:
            open_page(chromium, written)
        WebDriverWait(chromium, 10).until(lambda d, before=before: d.execute_script(tick) != before)
        before = chromium.execute_script(tick)
        assert_contrast(chromium, scheme)


def assert_contrast(driver, scheme: str) -> None:
    style = "return getComputedStyle(arguments[0])[arguments[1]]"
    ground = driver.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    assert (luminance(ground) > 0.5) == (scheme == "light")
    for selector, kind in [
        (".lead", "color"),
        (".rank1 .mean", "color"),
        (".spread", "color"),
        ("thead a", "color"),
        ("figcaption", "color"),
        (".ytick text", "fill"),
    ]:
        ink = driver.execute_script(style, find(driver, selector)[0], kind)
        dark, light = sorted([luminance(ink), luminance(ground)])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (selector, ink, ground)


def test_markup_in_names_does_nothing(chromium, tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    record = example.make_result("animals_knn", "evil", 0, {"top1": 50.0})
    results.append(store, results.Result(**{**vars(record), "commit": EVIL, "device": EVIL, "checkpoint": EVIL}))
    definition = tmp_path / "evil.toml"
    definition.write_text(
        f"title = {json.dumps(EVIL)}\ndescription = {json.dumps(EVIL)}\n"
        f'[[rows]]\nlabel = {json.dumps(EVIL)}\nrecipe = "evil"\n'
        f'[[columns]]\nheader = {json.dumps(EVIL)}\ntask = "animals_knn"\nmetric = "top1"\n'
    )
    written = page.write(str(definition), store, tmp_path, tmp_path / "index.html")
    open_page(chromium, written)
    assert chromium.title == f"{EVIL} · cgh-bench"
    assert find(chromium, "img") == []
    assert find(chromium, "h1")[0].text == EVIL
    assert EVIL in chromium.execute_script("return document.querySelector('.ytick text').textContent")
    assert chromium.get_log("browser") == []
