"""The site in a real browser: it filters, sorts, compares, links, and neither complains nor calls out."""

import base64
import dataclasses
import io
import json
import sys
import time
from pathlib import Path

import example
import pytest
from PIL import Image
from scipy.stats import ttest_ind

from cgh_bench import outcomes, results
from cgh_bench.site import site

pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait
from test_page import EVIL, emulate, find, open_page, requests


@pytest.fixture(scope="session")
def index(workspace: Path) -> Path:
    with example.few_scenes():
        return site.write(workspace / "results.jsonl", workspace, workspace / "site")


def rows(driver) -> list[list[str]]:
    script = "return [...document.querySelectorAll('.board tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    return driver.execute_script(script)


def choose(driver, control: str, value: str) -> None:
    Select(driver.find_element(By.ID, control)).select_by_value(value)


def column(driver, name: str) -> list[float]:
    head = driver.execute_script("return [...document.querySelectorAll('.board thead th')].map(c => c.textContent)")
    place = next(number for number, text in enumerate(head) if bare(text) == name)
    return [float(row[place].split(" ")[0]) for row in rows(driver) if row[place]]


def bare(header: str) -> str:
    return header.rstrip(" ▲▼↓")


def sort_by(driver, name: str) -> None:
    next(b for b in find(driver, ".board thead button") if bare(b.text) == name).click()


def test_every_kind_of_page_opens_without_a_complaint_or_a_request(chromium, index: Path) -> None:
    root = index.parent
    pages = [index, root / "compare.html", root / "tables/animals.html", root / "tables/voc_det.html"]
    pages += [root / "protocols/voc_det.html", root / "checkpoints/cgh_r18_animals.html"]
    pages.append(next((root / "protocols").glob("animals_det@*")))
    for path in pages:
        chromium.get(path.as_uri())
        assert chromium.get_log("browser") == [], path
        assert {url for url in requests(chromium) if not url.startswith("file:")} == set()
        assert len(find(chromium, "h1")) == 1
        assert chromium.execute_script("return getComputedStyle(document.body).margin") == "0px"  # the shared style
        assert chromium.execute_script("return !document.querySelector('.plot') || Boolean(window.Plotly)")


def test_every_link_between_pages_leads_somewhere(index: Path) -> None:
    import re
    from html import unescape
    from urllib.parse import unquote

    pages = list(index.parent.rglob("*.html"))
    assert len(pages) > 80
    for path in pages:
        for href in re.findall(r'href="([^"#?]+)', path.read_text(encoding="utf-8")):
            target = unquote(unescape(href))
            if not target.startswith(("https:", "data:")):
                assert (path.parent / target).is_file(), (path, target)


def test_measured_rows_come_first_and_are_sorted_by_the_main_metric(chromium, index: Path) -> None:
    chromium.get(index.as_uri())
    choose(chromium, "board", next(b["id"] for b in boards(chromium) if b["id"].startswith("animals_knn@")))
    assert [row[0] for row in rows(chromium)] == ["cgh_r18_animals", "moco_v2_r18_animals", "random_r18_animals"]
    assert column(chromium, "Top-1") == sorted(column(chromium, "Top-1"), reverse=True)


def boards(driver) -> list[dict]:
    return driver.execute_script("return data.boards")


def test_it_sorts_by_any_column_both_ways(chromium, index: Path) -> None:
    chromium.get(index.as_uri())
    choose(chromium, "board", "voc_det")
    assert column(chromium, "Box AP50") == sorted(column(chromium, "Box AP50"), reverse=True)
    sort_by(chromium, "Box AP50")
    assert column(chromium, "Box AP50") == sorted(column(chromium, "Box AP50"))
    sort_by(chromium, "Epochs")
    assert column(chromium, "Epochs") == sorted(column(chromium, "Epochs"))
    (active,) = find(chromium, "[aria-sort=ascending]")
    assert active.text.startswith("Epochs")
    assert chromium.switch_to.active_element.text.startswith("Epochs")
    assert rows(chromium)[-1][1] == ""  # unknown comes last


def test_it_filters_by_method_cost_and_epochs(chromium, index: Path) -> None:
    chromium.get(index.as_uri())
    choose(chromium, "board", "imagenet_linear")
    everything = len(rows(chromium))
    chromium.find_element(By.ID, "method").send_keys("moco V2")
    assert {row[0].split(" ")[0] for row in rows(chromium)} == {"MoCo"}
    choose(chromium, "cost", "symmetric")
    assert {row[2] for row in rows(chromium)} == {"2 (symmetric)"}
    chromium.find_element(By.ID, "epochs").send_keys("200")
    assert {row[1] for row in rows(chromium)} == {"200"}
    shown = len(rows(chromium))
    assert 0 < shown < everything
    assert find(chromium, ".status")[0].text.startswith(f"{shown} of {everything} rows")
    Select(chromium.find_element(By.ID, "kind")).select_by_visible_text("measured")
    assert rows(chromium) == []


def test_a_protocol_can_be_linked_to(chromium, index: Path) -> None:
    chromium.get(index.as_uri() + "?board=coco_fpn_1x_infomin#leaderboard")
    assert (
        Select(chromium.find_element(By.ID, "board")).first_selected_option.get_attribute("value")
        == "coco_fpn_1x_infomin"
    )
    assert "SlotCon" in " ".join(row[0] for row in rows(chromium))


def test_what_the_reader_chose_survives_a_reload(chromium, index: Path) -> None:
    """A served page is loaded again every minute."""
    chromium.get(index.as_uri())
    choose(chromium, "board", "imagenet_linear")
    chromium.find_element(By.ID, "method").send_keys("moco v2")
    choose(chromium, "cost", "symmetric")
    sort_by(chromium, "Epochs")
    sort_by(chromium, "Epochs")
    before = rows(chromium)
    chromium.refresh()
    WebDriverWait(chromium, 10).until(rows)
    assert rows(chromium) == before
    assert column(chromium, "Epochs") == sorted(column(chromium, "Epochs"), reverse=True)
    assert chromium.find_element(By.ID, "method").get_attribute("value") == "moco v2"
    find(chromium, "nav a[href='#tables']")[0].click()
    assert "board=imagenet_linear" in chromium.current_url
    assert chromium.current_url.endswith("#tables")


def test_what_is_compared_survives_a_reload(chromium, index: Path) -> None:
    chromium.get((index.parent / "compare.html").as_uri())
    Select(chromium.find_element(By.ID, "second")).select_by_visible_text("cgh_r18_animals")
    before = rows(chromium)
    chromium.refresh()
    WebDriverWait(chromium, 10).until(rows)
    assert rows(chromium) == before


def test_two_backbones_are_compared_by_welchs_interval(chromium, tmp_path: Path) -> None:
    """60, 61, 62 and 70, 71, 72: difference -10, half width 2.267 (worked in the tests of `report.check`)."""
    store = tmp_path / "results.jsonl"
    for recipe, values in {"one": (60.0, 61.0, 62.0), "two": (70.0, 71.0, 72.0), "three": (61.0, 62.0, 63.0)}.items():
        for seed, value in enumerate(values):
            results.append(store, example.make_result("animals_knn", recipe, seed, {"top1": value}))
    results.append(store, example.make_result("animals_knn", "four", 0, {"top1": 99.0}))
    for seed, value in enumerate(
        (64.0, 66.7, 69.4)
    ):  # other deviations: degrees of freedom between two and three, as in tables
        results.append(store, example.make_result("animals_knn", "five", seed, {"top1": value}))
    low, high = ttest_ind((60.0, 61.0, 62.0), (64.0, 66.7, 69.4), equal_var=False).confidence_interval(0.95)
    written = site.write(store, tmp_path, tmp_path / "site")
    chromium.get((written.parent / "compare.html").as_uri() + "?first=one")
    for other, expected in {
        "two": ["-10.00", "-12.27 to -7.73", "two is better"],
        "three": ["-1.00", "-3.27 to 1.27", "No significant difference"],
        "four": ["", "", "n = 1: no significance test"],
        "five": ["-5.70", f"{low:.2f} to {high:.2f}", "No significant difference"],
    }.items():
        Select(chromium.find_element(By.ID, "second")).select_by_visible_text(other)
        (row,) = rows(chromium)
        assert row[4:] == expected
    assert row[2] == "61.00 ± 1.00 (3)"


def test_runs_that_left_predictions_are_compared_over_the_same_images_too(chromium, index: Path) -> None:
    chromium.get((index.parent / "compare.html").as_uri() + "?first=cgh_r18_animals")
    Select(chromium.find_element(By.ID, "second")).select_by_visible_text("random_r18_animals")
    forth = paired(chromium)
    Select(chromium.find_element(By.ID, "first")).select_by_visible_text("random_r18_animals")
    Select(chromium.find_element(By.ID, "second")).select_by_visible_text("cgh_r18_animals")
    back = paired(chromium)
    assert forth[0] > 0
    assert back == [-forth[1], -forth[0]]


def test_images_that_flip_are_counted_class_by_class_and_shown(chromium, index: Path, workspace: Path) -> None:
    records, _ = results.read(workspace / "results.jsonl")
    found = [outcomes.of_run(run, workspace) for run in records if run.task == "animals_knn" and not run.origin["seed"]]
    cgh, moco = (each.rank[:, 0] < 1 for each in (found[2], found[1]))
    chromium.get((index.parent / "compare.html").as_uri() + "?first=cgh_r18_animals&second=moco_v2_r18_animals")
    said = find(chromium, "#flips .about")[1].text
    assert (
        f"Only cgh_r18_animals correct: {(cgh & ~moco).sum()}; only moco_v2_r18_animals correct: {(moco & ~cgh).sum()}."
        in said
    )
    bears = found[1].target == 0
    assert f"{found[1].classes[0]} {(cgh & ~moco & bears).sum()} : {(moco & ~cgh & bears).sum()}" in said
    shown = find(chromium, ".flips li")
    assert 10 < len(shown) <= 24
    alts = {item.find_element(By.TAG_NAME, "img").get_attribute("alt") for item in shown}
    assert len(alts) > 3 and alts <= set(found[1].classes)
    Select(chromium.find_element(By.ID, "second")).select_by_visible_text("cgh_r18_animals")
    assert find(chromium, "#flips")[0].is_displayed() is False


def test_the_ranking_has_intervals_and_is_copied_as_text(chromium, index: Path) -> None:
    chromium.get(index.as_uri())
    first = boards(chromium)[0]  # as evaluated first
    assert first["id"].startswith("animals_knn@")
    (values,) = [row["values"]["top1"] for row in first["rows"] if row["name"] == "cgh_r18_animals"]
    low, high, over = values[3]
    assert (values[0] - low, over) == (pytest.approx(high - values[0], abs=2e-3), "3 pretraining seeds")
    assert high - values[0] == pytest.approx(4.3027 * values[1] / 3**0.5, abs=2e-3)  # Student's, two degrees of freedom
    label = find(chromium, ".interval")[0].get_attribute("aria-label")
    assert label == f"{low:.1f} to {high:.1f}, over {over}"
    text = chromium.execute_script("return FORMATS && tableText(document.querySelector('.board'), 'CSV')").splitlines()
    assert text[0] == "Backbone,Top-1,95 % interval,Source"
    assert text[1] == f'cgh_r18_animals,{values[0]:.1f} ± {values[1]:.1f} (3),"{label}",measured'
    latex = chromium.execute_script("return tableText(document.querySelector('.board'), 'LaTeX')")
    assert r"cgh\_r18\_animals & " in latex and r"$\pm$" in latex


def test_accuracy_is_drawn_against_cost_with_the_front(chromium, index: Path) -> None:
    chromium.get(index.as_uri() + "?board=imagenet_linear")
    (plot,) = find(chromium, ".front-figure svg")
    front = plot.get_attribute("aria-label").split("front: ")[1]
    assert front == "MSF, BYOL, SCE, MoCo v3, MoCo v3."
    chromium.find_element(By.ID, "method").send_keys("moco")
    assert find(chromium, ".front-figure svg")[0].get_attribute("aria-label") != front
    ticks = chromium.execute_script(
        "return ticks([10.752, 10.781]).map(([value, decimals]) => value.toFixed(decimals))"
    )
    assert ticks == ["10.755", "10.760", "10.765", "10.770", "10.775", "10.780"]
    choose(chromium, "board", "imagenet_shift_dinov3")
    assert not find(chromium, ".front-figure")[0].is_displayed()


def paired(driver) -> list[float]:
    (text,) = [element.text for element in find(driver, ".images")]
    assert "over 2,000 images" in text
    return [float(side) for side in text.split(": ")[1].split(" to ")]


def test_what_is_behind_the_numbers_is_drawn(chromium, index: Path) -> None:
    open_page(chromium, index.parent / "checkpoints/cgh_r18_animals.html")
    titles = {title.text for title in find(chromium, "#breakdown .chart-title")}
    assert {
        "animals_knn: top-1 per class",
        "animals_det: precision and recall of boxes",
        "animals_det: box AP per class",
        "animals_seg: confusion matrix",
        "animals_seg: IoU per class",
    } <= titles
    assert chromium.get_log("browser") == []


def test_every_chart_is_saved_as_svg_and_png_without_a_request(chromium, index: Path) -> None:
    script = "const [chart, format, done] = arguments; picture(document.querySelector(chart), format).then(done, done)"
    pages = {".chart": "checkpoints/cgh_r18_animals.html", ".front-figure": "index.html?board=imagenet_linear"}
    for chart, page in pages.items():
        chromium.get(f"{index.parent.as_uri()}/{page}")
        svg, png = (chromium.execute_async_script(script, chart, format) for format in ("svg", "png"))
        assert svg.startswith("data:image/svg+xml") and len(svg) > 2000
        width, height = Image.open(io.BytesIO(base64.b64decode(png.partition(",")[2]))).size
        assert min(width, height) > 200
        labels = [button.get_attribute("aria-label") for button in find(chromium, f"{chart} .save")]
        assert [label[-3:] for label in labels[:2]] == ["SVG", "PNG"]
    assert chromium.get_log("browser") == []


def test_backbones_are_ranked_over_the_protocols_that_they_share(chromium, index: Path) -> None:
    chromium.get(index.as_uri())
    lines = [[cell.text for cell in row.find_elements(By.XPATH, "*")] for row in find(chromium, "#ranking tbody tr")]
    assert [line[0] for line in lines] == ["1. cgh_r18_animals", "2. moco_v2_r18_animals", "3. random_r18_animals"]
    assert [line[1] for line in lines] == ["1.00", "2.00", "3.00"]
    assert float(lines[0][2]) > 0 > float(lines[2][2])
    wins = [[float(rate) for rate in line[4:] if rate != "–"] for line in lines]
    assert wins[0][0] + wins[1][0] == pytest.approx(100, abs=1)
    assert "no critical difference" in chromium.page_source


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(chromium, index: Path, scheme: str) -> None:
    axe = Path(sys.prefix, "axe/node_modules/axe-core/axe.min.js")
    if not axe.is_file():
        pytest.skip("axe-core is absent; run `make providers`")
    only = {"runOnly": ["color-contrast"]} if scheme == "dark" else {}  # all else is as in the light
    options = {"preload": False, **only}
    run = "const [options, done] = arguments; axe.run(options).then(({ violations }) => done(violations), done)"
    knn = next((index.parent / "protocols").glob("animals_knn@*"))
    for path in (index, index.with_name("compare.html"), index.parent / "checkpoints/cgh_r18_animals.html", knn):
        emulate(chromium, 1360, scheme)
        open_page(chromium, path)
        chromium.execute_script(axe.read_text(encoding="utf-8"))
        found = chromium.execute_async_script(run, options)
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == [], path


def test_markup_in_names_does_nothing_on_any_page(chromium, tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    record = example.make_result("animals_knn", EVIL, 0, {"top1": 50.0})
    results.append(store, dataclasses.replace(record, commit=EVIL, checkpoint_name=EVIL, checkpoint=EVIL))
    results.append(store, dataclasses.replace(record, origin={}, checkpoint_name=EVIL, checkpoint="../../x"))
    written = site.write(store, tmp_path, tmp_path / "site")
    assert {path.parent.name for path in tmp_path.rglob("*.html")} == {"site", "tables", "protocols", "checkpoints"}
    for path in [written, written.parent / "compare.html", *(written.parent / "checkpoints").iterdir()]:
        chromium.get(path.as_uri())
        assert "owned" not in chromium.title.replace(EVIL, "")
        assert find(chromium, "img") == []
        assert chromium.get_log("browser") == []
        assert EVIL in find(chromium, "body")[0].get_attribute("textContent")


@pytest.mark.parametrize(
    "name", ["index.html", "compare.html", "protocols/voc_det.html", "checkpoints/cgh_r18_animals.html"]
)
def test_it_fits_a_phone(chromium, index: Path, name: str) -> None:
    emulate(chromium, 360)
    chromium.get((index.parent / name).as_uri())
    root = "document.documentElement"
    assert chromium.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")


@pytest.mark.slow
def test_five_thousand_results_are_interactive_within_two_seconds(chromium, tmp_path: Path) -> None:
    store = tmp_path / "results.jsonl"
    with store.open("w", encoding="utf-8") as file:
        for number in range(500):
            for seed in range(10):
                result = example.make_result("animals_knn", f"recipe{number}", seed, {"top1": 50 + number / 100})
                file.write(json.dumps(dataclasses.asdict(result)) + "\n")
    written = site.write(store, tmp_path, tmp_path / "site")
    start = time.monotonic()
    chromium.get(written.as_uri())
    WebDriverWait(chromium, 10, 0.02).until(lambda d: len(rows(d)) == 200)
    sort_by(chromium, "Backbone")
    assert rows(chromium)[0][0] == "recipe0"
    assert time.monotonic() - start < 2
    find(chromium, ".more")[0].click()
    assert len(rows(chromium)) == 500
