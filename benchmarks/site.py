"""How long the site of 10,000 results takes to make, what its pages weigh, and when the first one can be used.

    python benchmarks/site.py

Interactive means: in headless Chromium, from the start of the load until the leaderboard is drawn and has been sorted
anew by a click on a header. Saves `results/site.json`.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from selenium import webdriver

from cgh_bench import tasks
from cgh_bench.core.config import plain
from cgh_bench.evaluation import commit, protocol_id
from cgh_bench.results import Result
from cgh_bench.site import site

RECIPES, SEEDS, TASKS = 500, 5, ("animals_knn", "animals_linear", "animals_det", "animals_seg")
REPEATS = 5
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1360,900", "--disable-background-networking")
READY = "return document.querySelectorAll('.board tbody tr').length"


def main() -> None:
    """Make it, load it, write down what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "results.jsonl")
        fill(store)
        started = time.monotonic()
        index = site.write(store, store.parent, Path(folder, "site"))
        made = time.monotonic() - started
        pages = sorted(index.parent.rglob("*.html"), key=lambda path: path.stat().st_size)
        loads = interactive(index)
        measured = {
            "results": RECIPES * SEEDS * len(TASKS),
            "backbones": RECIPES,
            "seconds_to_make": round(made, 1),
            "seconds_to_interactive": {"median": round(statistics.median(loads), 2), "worst": round(max(loads), 2)},
            "pages": len(pages),
            "kilobytes": {
                "index": round(index.stat().st_size / 1000),
                "heaviest": [pages[-1].name, round(pages[-1].stat().st_size / 1000)],
                "charting_library_shared": round((index.parent / "assets/plotly.min.js").stat().st_size / 1000),
                "whole_site": round(sum(p.stat().st_size for p in index.parent.rglob("*") if p.is_file()) / 1000),
            },
            "browser": subprocess.run(
                ["chromium", "--version"], capture_output=True, text=True, check=True
            ).stdout.strip(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "commit": commit(),
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    text = json.dumps(measured, indent=1) + "\n"
    out = Path(__file__).parent / "results" / "site.json"
    out.write_text(text, encoding="utf-8")
    print(text)


def fill(store: Path) -> None:
    """A store of made-up results, no two alike."""
    with store.open("w", encoding="utf-8") as file:
        for number in range(RECIPES):
            for seed in range(SEEDS):
                for task in TASKS:
                    file.write(json.dumps(dataclasses.asdict(made_up(task, number, seed))) + "\n")


def made_up(task: str, number: int, seed: int) -> Result:
    """One result."""
    found = tasks.find(task)
    recipe = f"recipe{number:03}"
    checkpoint = hashlib.sha256(f"{recipe} {seed}".encode()).hexdigest()[:16]
    return Result(
        task=task,
        protocol=protocol_id(task, found),
        metrics={metric.name: 40 + number / 10 + seed / 7 for metric in found.METRICS},
        checkpoint=checkpoint,
        checkpoint_name=recipe,
        origin={"source": "pretrain", "recipe": recipe, "seed": seed},
        data="9f3c5a7e21d04b88",
        config=plain(found),
        seed=seed,
        started=f"2026-09-01T10:00:{seed:02}+00:00",
        seconds=71.5,
    )


def interactive(index: Path) -> list[float]:
    """Seconds from the start of the load until a click has sorted the leaderboard, for each of a few new browsers."""
    seconds = []
    for _ in range(REPEATS):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in FLAGS:
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        driver.get("about:blank")
        started = time.monotonic()
        driver.get(index.as_uri())
        while not driver.execute_script(READY):
            time.sleep(0.01)
        driver.execute_script("document.querySelector('.board thead button').click()")
        assert driver.execute_script("return document.querySelector('[aria-sort=ascending]') !== null")
        seconds.append(time.monotonic() - started)
        driver.quit()
    return seconds


if __name__ == "__main__":
    main()
