"""The page as text: complete, self-contained, escaped, its weight stated. `tests/browser` opens it."""

import json
import re
from pathlib import Path

import pytest
from reporting import DEFINITION, result, use_fake_tasks, write_definition

from cgh_bench import results
from cgh_bench.results import Result
from cgh_bench.site import page

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>&amp;\"'"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_fake_tasks(monkeypatch)

    def write(*records: Result, definition: str = DEFINITION) -> str:
        store = tmp_path / "results.jsonl"
        for record in records:
            results.append(store, record)
        name = write_definition(tmp_path, definition)
        return page.write(name, store, tmp_path, tmp_path / "out" / "index.html").read_text(encoding="utf-8")

    return write


def own(html: str) -> str:
    """The page without the charting library."""
    return re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_every_figure_has_its_provenance(write) -> None:
    html = own(write(result("a", 61.25, versions={"torch": "2.14.1"}, commit="1bc747e0aa12", seconds=75.2, seed=3)))
    assert 'popovertarget="cell-0-0"' in html
    behind = html[html.index('id="cell-0-0"') :]
    for shown in ("knn@", "a0", "1bc747e0aa12", "torch 2.14.1", "75 s", "2026-09-01 12:00:00 UTC", "d0"):
        assert shown in behind
    assert 'id="cell-1-0"' not in html  # not measured


def test_several_runs_are_listed_with_what_differs(write) -> None:
    html = own(write(*(result("a", 60.0 + seed, pretraining=seed) for seed in range(3))))
    runs = html[html.index('class="runs"') :].split("</table>")[0]
    assert re.findall(r'<th scope="col">(.*?)</th>', runs) == ["kNN", "Checkpoint", "Pretraining seed"]
    assert re.findall(r"<td>(.*?)</td>", runs) == ["60.00", "a0", "0", "61.00", "a1", "1", "62.00", "a2", "2"]


def test_nothing_is_asked_of_the_network(write) -> None:
    html = own(write(result("a", 60.0)))
    assert "default-src 'none'" in html
    assert not re.findall(r"""\s(?:src|href|action)\s*=\s*["'](?!#|data:)""", html)
    assert "url(" not in html
    assert "@import" not in html


def test_names_are_text_not_markup(write) -> None:
    definition = DEFINITION.replace('label = "A"', f"label = {json.dumps(EVIL)}")
    definition = definition.replace('title = "Small"', f"title = {json.dumps(EVIL)}")
    record = result("a", 60.0, checkpoint=EVIL, commit=EVIL, versions={EVIL: EVIL}, device=EVIL)
    html = own(write(record, definition=definition))
    assert "alert(" in html
    assert "<script>alert" not in html
    assert "<img src=x" not in html


def test_the_weight_is_bounded(write) -> None:
    assert len(write(result("a", 60.0)).encode()) < 8e6


def test_no_results_still_make_a_page(write) -> None:
    html = own(write())
    assert "no results yet" in html
    assert html.count("not measured") == 4


def test_what_is_missing_or_broken_is_said(write, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("torn\n")
    html = own(write(result("a", 60.0, overridden=("k=3",)), result("b", 50.0)))
    assert "not a result of schema 1" in html
    assert "A: 1 result left out (overridden settings)." in html
    assert "No pictures: the run folders are not beside the results." in html


def test_the_protocol_is_shown_whole(write) -> None:
    html = own(write())
    assert "Measures nothing." in html
    assert "Only the first sentence" not in html
    assert "&#34;k&#34;: 20" in html
