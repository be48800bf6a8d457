"""The arithmetic of tables against cases worked by hand, and what may not fill a cell."""

from pathlib import Path

import pytest
from reporting import result, use_fake_tasks, write_definition

from cgh_bench.core.errors import UserError
from cgh_bench.report import table
from cgh_bench.report.cells import Cell, Table
from cgh_bench.results import Result


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_fake_tasks(monkeypatch)
    name = write_definition(tmp_path)

    def build(*results: Result) -> Table:
        return table.build(name, results)

    return build


def cell(filled: Table, row: int = 0, column: int = 0) -> Cell:
    return filled.rows[row].cells[column]


def test_mean_and_sample_deviation_over_pretraining_seeds(build) -> None:
    """60, 61, 65: mean 62, squared deviations 4 + 1 + 9 = 14, over n - 1 = 2: 7, its root 2.6458."""
    filled = build(*(result("a", value, pretraining=seed) for seed, value in enumerate([60.0, 61.0, 65.0])))
    assert cell(filled).mean == 62
    assert cell(filled).std == pytest.approx(2.6458, abs=1e-4)
    assert cell(filled).text() == "62.0 ± 2.6 (3)"
    assert cell(filled).replicate == "pretraining seed"
    assert filled.notes == ("Mean ± sample standard deviation (n) over pretraining seeds.",)


def test_how_far_the_proof_of_the_weights_reaches_is_told(build) -> None:
    def of(name: str, *words: str) -> list[Result]:
        origins = [{"recipe": name, "seed": seed, "reach": word} for seed, word in enumerate(words)]
        return [result(name, 60.0, pretraining=n, origin=origin) for n, origin in enumerate(origins)]

    assert build(*of("a", "origin"), *of("b", "origin")).notes[-1] == "Proof of the weights: origin."
    told = build(*of("a", "origin", "assumed"), *of("b", "convention")).notes[-1]
    assert told.startswith("Proof of the weights: convention (") and "; assumed (" in told


def test_one_run_has_no_spread_and_none_is_a_dash(build) -> None:
    filled = build(result("a", 60.0))
    assert cell(filled).text() == "60.0"
    assert cell(filled, row=1).text() == "–"
    assert cell(filled, row=1).runs == ()
    assert filled.notes == ()


def test_repeats_on_one_checkpoint_are_the_replicates(build) -> None:
    filled = build(result("a", 60.0), result("a", 62.0, seed=1))
    assert cell(filled).values == (60.0, 62.0)
    assert cell(filled).replicate == "evaluation seed"


def test_copies_of_one_number_have_no_spread_and_no_rank(build) -> None:
    """A task without randomness, repeated on the same weights: nothing varied."""
    runs = [result(name, value, seed=seed) for name, value in (("a", 57.2), ("b", 57.1)) for seed in range(3)]
    filled = build(*runs)
    assert [(row.cells[0].text(), row.cells[0].n, row.cells[0].rank) for row in filled.rows] == [
        ("57.2", 1, 0),
        ("57.1", 1, 0),
    ]
    assert len(cell(filled).runs) == 3


def test_repeats_on_several_checkpoints_are_averaged_first(build) -> None:
    """Four numbers but two independent trainings: n is 2."""
    runs = [
        result("a", value, pretraining=pretraining, seed=seed)
        for pretraining, seed, value in [(0, 0, 60.0), (0, 1, 62.0), (1, 0, 70.0), (1, 1, 74.0)]
    ]
    filled = build(*runs)
    assert cell(filled).values == (61.0, 72.0)
    assert cell(filled).runs == tuple(runs)


def test_the_latest_of_the_same_checkpoint_and_seed_counts(build) -> None:
    old = result("a", 10.0, started="2026-09-01T12:00:00+00:00", work="../merged/eval")
    new = result("a", 20.0, started="2026-09-02T12:00:00+00:00")
    assert cell(build(new, old)).values == (20.0,)
    assert cell(build(old, new)).runs == (new,)


def test_a_clock_that_was_set_back_makes_no_result_older(build) -> None:
    first = [result("a", 10.0, started="2026-09-02T12:00:00+00:00"), result("b", 11.0)]
    assert cell(build(*first, result("a", 20.0, started="2026-09-01T12:00:00+00:00"))).values == (20.0,)


def test_of_two_in_the_same_second_the_later_line_counts(build) -> None:
    assert cell(build(result("a", 10.0), result("a", 20.0))).values == (20.0,)


def test_a_subset_never_fills_a_cell_nor_displaces_the_full_data(build) -> None:
    """It is the newer one, on other data, and under the same id where the weights were trained on the subset."""
    newer = result("a", 2.0, subset="24 of 123,287 images", data="d" * 16, started="2099-01-01T00:00:00+00:00")
    filled = build(result("a", 38.5), newer, result("b", 50.0))
    assert filled.rows[0].cells[0].values == (38.5,)
    assert filled.notes == ("A: 1 result left out (a subset of the published data).",)


def test_overridden_results_never_fill_a_cell(build) -> None:
    filled = build(result("a", 99.0, overridden=("k=5",)), result("b", 50.0))
    assert cell(filled).n == 0
    assert filled.notes == ("A: 1 result left out (overridden settings).",)


def test_results_of_another_protocol_never_fill_a_cell(build) -> None:
    filled = build(result("a", 99.0, protocol="knn@00000000"), result("a", 98.0, protocol="knn@00000001"))
    assert cell(filled).n == 0
    assert filled.notes == ("A: 2 results left out (not the current protocol).",)


def test_results_on_older_data_never_fill_a_cell(build) -> None:
    older = result("a", 99.0, data="d0", started="2026-09-01T12:00:00+00:00", work="../merged/eval")
    newer = result("b", 50.0, data="d1", started="2026-09-02T12:00:00+00:00")
    filled = build(newer, older)
    assert (cell(filled).n, cell(filled, row=1).values) == (0, (50.0,))
    assert filled.notes == ("A: 1 result left out (other data than the newest result).",)


def test_weights_trained_again_replace_the_older_ones_in_every_column(build) -> None:
    old = [result("a", 10.0, checkpoint="old"), result("a", 11.0, checkpoint="old", task="linear")]
    new = result("a", 20.0, checkpoint="new", started="2026-09-02T12:00:00+00:00")
    filled = build(*old, new)
    assert cell(filled).values == (20.0,)
    assert cell(filled, column=1).n == 0
    assert filled.notes == ("A: 2 results left out (replaced by newer weights).",)


def test_other_weights_without_a_seed_replace_the_older(build) -> None:
    """Nothing says that they are independent trainings of the same: they are not averaged."""
    runs = [result("a", value, pretraining=None, checkpoint=name) for name, value in [("x", 60.0), ("y", 62.0)]]
    assert cell(build(*runs)).values == (62.0,)


def test_foreign_recipes_tasks_and_metrics_are_passed_by(build) -> None:
    other = [
        result("c", 1.0),
        result("a", 1.0, origin={}),
        result("a", 1.0, origin={"recipe": ["a"]}),
        result("a", 1.0, metrics={"top5": 1.0}),
    ]
    filled = build(*other)
    assert cell(filled).n == 0
    assert filled.notes == ()


def ranked(build, *values: list[float], task: str = "knn") -> list[int]:
    runs = [
        result(recipe, value, pretraining=seed, task=task)
        for recipe, sample in zip("ab", values, strict=True)
        for seed, value in enumerate(sample)
    ]
    return [row.cells[task == "linear"].rank for row in build(*runs).rows]


def test_the_best_is_marked_by_significance_not_by_digits(build) -> None:
    assert ranked(build, [60.0, 60.2, 59.8], [70.0, 70.2, 69.8]) == [0, 1]
    assert ranked(build, [60.0, 60.2, 59.8], [60.1, 60.3, 59.9]) == [0, 0]
    assert ranked(build, [60.0], [70.0]) == [0, 0]


def test_a_lower_error_is_better(build) -> None:
    assert ranked(build, [60.0, 60.2, 59.8], [70.0, 70.2, 69.8], task="linear") == [1, 0]


def test_spreads_over_different_things_are_not_compared(build) -> None:
    repeats = [result("a", value, seed=seed) for seed, value in enumerate([60.0, 60.2])]
    trainings = [result("b", value, pretraining=seed) for seed, value in enumerate([70.0, 70.2])]
    assert [row.cells[0].rank for row in build(*repeats, *trainings).rows] == [0, 0]


def test_an_unknown_format_is_answered_with_the_nearest(build) -> None:
    with pytest.raises(UserError, match=r"unknown table format 'latex'"):
        table.render(build(), "latex")
