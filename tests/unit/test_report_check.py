"""Verdicts on reproduction, against intervals worked by hand."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from reporting import DEFINITION, result, use_fake_tasks, write_definition
from scipy.stats import binomtest

from cgh_bench import published
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.report import check, definition, table
from cgh_bench.report.cells import Cell, Table
from cgh_bench.results import Result

WITH_METHOD = DEFINITION.replace('recipe = "a"', 'recipe = "a"\nmethod = "MoCo v2"\nepochs = 200').replace(
    'metric = "top1"', 'metric = "top1"\npublished = "fake"'
)
FAKE = published.Protocol("fake", "Fake", "fake", "", "", {"top1": 0.2}, "somebody", ("knn",))
RESULTS = tuple(
    published.PublishedResult("fake", "MoCo v2", "", 200, "", metric, value, "", f"https://example.org/{number}")
    for number, (metric, value) in enumerate([("top1", 60.0), ("top1", 60.4), ("error", 1.0)])
)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_fake_tasks(monkeypatch)
    monkeypatch.setattr(published, "results", lambda: RESULTS)
    monkeypatch.setattr(published, "protocols", lambda: {"fake": FAKE})

    def build(*results: Result, text: str = DEFINITION) -> Table:
        return table.build(write_definition(tmp_path, text), results)

    return build


def runs(recipe: str, *values: float) -> list[Result]:
    return [result(recipe, value, pretraining=seed) for seed, value in enumerate(values)]


def reference(tmp_path: Path, filled: Table) -> Path:
    path = tmp_path / "reference.csv"
    path.write_text(table.render(filled, "csv"), encoding="utf-8")
    return path


def test_the_same_again_agrees(build, tmp_path: Path) -> None:
    before = build(*runs("a", 60.0, 61.0, 62.0), *runs("b", 70.0, 70.0, 70.0))
    verdicts = check.judge(before, reference(tmp_path, before))
    assert [(v.row.label, v.verdict, v.difference) for v in verdicts] == [("A", "agrees", 0.0), ("B", "agrees", 0.0)]
    check.require(verdicts)


def test_the_allowed_difference_is_students(build, tmp_path: Path) -> None:
    """Both deviations 1, n 3: standard error sqrt(2/3) = .8165, 4 degrees of freedom, t(.975) = 2.7764: 2.267."""
    path = reference(tmp_path, build(*runs("a", 60.0, 61.0, 62.0)))
    (near,) = check.judge(build(*runs("a", 62.0, 63.0, 64.0)), path)
    assert near.allowed == pytest.approx(2.267, abs=1e-3)
    assert (near.difference, near.verdict) == (2.0, "agrees")
    (above,) = check.judge(build(*runs("a", 63.3, 64.3, 65.3)), path)
    assert above.verdict == "above"
    (below,) = check.judge(build(*runs("a", 57.0, 58.0, 59.0)), path)
    assert below.verdict == "below"
    with pytest.raises(CheckFailed, match="1 of 1 cells not reproduced; first: A, kNN: below"):
        check.require([below])


def test_a_single_run_is_held_against_the_spread_of_the_reference(build, tmp_path: Path) -> None:
    """One new value: t(.975) of 2 is 4.3027, times 1, times sqrt(1 + 1/3): 4.968."""
    path = reference(tmp_path, build(*runs("a", 60.0, 61.0, 62.0)))
    (verdict,) = check.judge(build(*runs("a", 65.9)), path)
    assert verdict.allowed == pytest.approx(4.968, abs=1e-3)
    assert verdict.verdict == "agrees"
    (verdict,) = check.judge(build(*runs("a", 66.1)), path)
    assert verdict.verdict == "above"


def test_many_figures_are_judged_together(build, tmp_path: Path) -> None:
    """Two figures: .9875 instead of .975; four times two degrees of freedom: t is 2.7515, the interval 2.247."""
    path = reference(tmp_path, build(*runs("a", 60.0, 61.0, 62.0), *runs("b", 60.0, 61.0, 62.0)))
    verdicts = check.judge(build(*runs("a", 60.0, 61.0, 62.0), *runs("b", 60.0, 61.0, 62.0)), path)
    assert [v.allowed for v in verdicts] == [pytest.approx(2.247, abs=1e-3)] * 2


def test_the_spread_is_that_of_the_most_variable_cell_of_the_column(build, tmp_path: Path) -> None:
    """Variances 1 and 4 with two degrees of freedom each: 4; one new value: t(.9875) of 4 3.4954, times sqrt(4/3)."""
    path = reference(tmp_path, build(*runs("a", 60.0, 61.0, 62.0), *runs("b", 58.0, 60.0, 62.0)))
    verdicts = check.judge(build(*runs("a", 61.0), *runs("b", 60.0)), path)
    assert [v.allowed for v in verdicts] == [pytest.approx(3.4954 * (4 * 4 / 3) ** 0.5, abs=1e-3)] * 2


def test_what_was_not_measured_is_not_reproduced(build, tmp_path: Path) -> None:
    path = reference(tmp_path, build(*runs("a", 60.0, 61.0)))
    (verdict,) = check.judge(build(), path)
    assert verdict.verdict == "not measured"
    with pytest.raises(CheckFailed):
        check.require([verdict])


def test_a_single_reference_run_judges_nothing(build, tmp_path: Path) -> None:
    path = reference(tmp_path, build(*runs("a", 60.0)))
    (verdict,) = check.judge(build(*runs("a", 90.0)), path)
    assert verdict.verdict == "not judged"
    check.require([verdict])


def test_published_results_are_the_reference_if_there_is_no_file(build) -> None:
    """Mean 60.2, spread .2, two runs: 1.96 * .2 * sqrt(1 + 1/2) = .480."""
    (verdict,) = check.judge(build(*runs("a", 60.5, 60.7), text=WITH_METHOD))
    assert verdict.reference.mean == pytest.approx(60.2)
    assert verdict.allowed == pytest.approx(0.480, abs=1e-3)
    assert verdict.verdict == "agrees"
    (verdict,) = check.judge(build(*runs("a", 60.8, 60.8), text=WITH_METHOD))
    assert verdict.verdict == "above"


def test_published_and_measured_share_a_cell(build) -> None:
    filled = build(*runs("a", 60.5, 60.7), text=WITH_METHOD)
    assert filled.rows[0].cells[0].full_text() == "60.6 ± 0.1 (2) [60.0–60.4]"
    assert filled.rows[1].cells[0].full_text() == "–"
    assert "In brackets: published; a range if sources differ." in filled.notes
    assert r"60.6 $\pm$ 0.1 (2) {[}60.0--60.4{]}" in table.render(filled, "tex")


def test_a_task_that_does_not_follow_the_protocol_cannot_share_its_column(build) -> None:
    other = WITH_METHOD.replace('task = "knn"', 'task = "linear"')
    with pytest.raises(UserError, match=r"linear does not follow the published protocol fake \(knn does\)"):
        build(text=other)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('method = "MoCo v2"', 'method = "MoCo v9"', "row 'A': unknown published method"),
        (
            "epochs = 200",
            "epochs = 300",
            "row 'A': no published result for any column; variants of MoCo v2: no detail, 200",
        ),
        ("epochs = 200", 'epochs = "200"', "epochs = '200'"),
        ('method = "MoCo v2"', "", "row 'A': detail and epochs select published results"),
        ('recipe = "b"', "", "row 'B': a row needs a recipe, a checkpoint or a method"),
        (
            'published = "fake"',
            'published = "fke"',
            "column 'kNN': unknown published protocol 'fke'; did you mean fake",
        ),
        ('metric = "top1"\npublished', 'metric = "time"\npublished', "unknown published metric of fake 'time'"),
    ],
)
def test_wrong_references_to_published_results_are_named(build, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(text=WITH_METHOD.replace(old, new))


def test_rows_may_name_a_checkpoint(build) -> None:
    text = DEFINITION.replace('recipe = "a"', 'checkpoint = "moco"')
    filled = build(result("x", 60.0, checkpoint_name="moco"), result("x", 50.0, checkpoint_name="other"), text=text)
    assert filled.rows[0].cells[0].values == (60.0,)


def test_nothing_to_check_against_is_said(build) -> None:
    with pytest.raises(UserError, match="cannot be checked"):
        check.judge(build(*runs("a", 60.0)))


def test_a_reference_that_is_none_is_named(build, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no reference file .*gone\.csv"):
        check.judge(build(), tmp_path / "gone.csv")
    (tmp_path / "torn.csv").write_text("row,column\nA,kNN\n")
    with pytest.raises(UserError, match="not a table in CSV"):
        check.judge(build(), tmp_path / "torn.csv")


def test_markdown_says_it_all(build, tmp_path: Path) -> None:
    path = reference(tmp_path, build(*runs("a", 60.0, 61.0, 62.0), *runs("b", 1.0, 2.0)))
    text = check.markdown(check.judge(build(*runs("a", 62.0, 63.0, 64.0)), path))
    assert "| A, kNN | 61.0 | 63.0 ± 1.0 (3) | +2.0 | ±2.6 | agrees |" in text
    assert "| B, kNN | 1.5 | – | – | – | not measured |" in text


def test_every_published_table_of_the_package_has_results_in_every_row() -> None:
    for name in definition.names():
        filled = table.build(name, [])
        for row in filled.rows:
            if row.definition.method:
                assert any(cell.published for cell in row.cells), (name, row.label)


@pytest.mark.parametrize("seeds", [1, 3])
def test_at_most_five_per_cent_of_faithful_reruns_fail(seeds: int, tmp_path: Path) -> None:
    """Normal runs around the committed animals table, with its own deviations; the reference is three such runs."""
    shape = table.build("animals", [])
    with (definition.TABLES / "animals.csv").open() as file:
        deviations = {(line["row"], line["column"]): float(line["std"]) for line in csv.DictReader(file)}
    rng = np.random.default_rng(0)

    def drawn(n: int) -> Table:
        rows = []
        for row in shape.rows:
            stds = [deviations[row.label, column.definition.header] for column in shape.columns]
            cells = [Cell((), tuple(rng.normal(50, std, n)), "pretraining seed") for std in stds]
            rows.append(dataclasses.replace(row, cells=tuple(cells)))
        return dataclasses.replace(shape, rows=tuple(rows))

    tables = 400
    verdicts = [check.judge(drawn(seeds), reference(tmp_path, drawn(3))) for _ in range(tables)]
    failed = sum(any(verdict.failed for verdict in each) for each in verdicts)
    assert binomtest(failed, tables, 0.05, alternative="greater").pvalue > 0.01
