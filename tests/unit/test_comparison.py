"""Comparisons on the same images, against references and cases whose answer is known."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from reporting import result, use_fake_tasks
from scipy.stats import binomtest

import cgh_bench
from cgh_bench import outcomes, results
from cgh_bench.cli import app
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import GreyImages
from cgh_bench.outcomes.base import named_images
from cgh_bench.outcomes.classification import Classification, classification
from cgh_bench.outcomes.segmentation import segmentation
from cgh_bench.report.comparison import compared, holm
from cgh_bench.report.flips import TILE, write_sheet
from cgh_bench.report.ranking import bradley_terry, rank
from cgh_bench.report.resampling import sign_flips
from cgh_bench.report.sides import Side, sides

N = 400


def images(n: int = N, content: str = "x") -> GreyImages:
    return GreyImages("x/val", ("a", "b"), np.arange(n) % 2, content, np.zeros((n, 1, 1), np.uint8))


def answered(rate: float, seed: int, of: GreyImages | None = None) -> Classification:
    of = of or images()
    right = np.random.default_rng(seed).random(len(of)) < rate
    return classification(of, np.where(right, of.labels, 1 - of.labels))


def side(name: str, *kept: outcomes.Outcomes) -> Side:
    runs = tuple(result(name, k.metrics()["top1"], pretraining=n) for n, k in enumerate(kept))
    return Side(name, runs, kept)


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    use_fake_tasks(monkeypatch)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Two trainings of `good`, two of `poor`, one of `same` as the first `good`; `old` kept no answers."""
    kept = {("good", 0): answered(0.8, 0), ("good", 1): answered(0.8, 1), ("poor", 0): answered(0.6, 2)}
    kept |= {("poor", 1): answered(0.61, 3), ("same", 0): answered(0.8, 0)}
    for (name, seed), outcome in kept.items():
        folder = f"eval/{name}{seed}"
        outcome.save(tmp_path / folder)
        value = outcome.metrics()["top1"]
        results.append(
            tmp_path / "results.jsonl", result(name, value, pretraining=seed, work=folder, config={"data": "gone"})
        )
    results.append(tmp_path / "results.jsonl", result("old", 50.0, work="eval/old"))
    return tmp_path


def run(work: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["compare", *arguments, "--work", str(work)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_sentence_says_how_much_better_and_how_sure(work: Path) -> None:
    text = run(work, "poor", "good")
    assert text.startswith("good is better than poor in knn top1 by ")
    assert "paired, 400 images; over 2 seeds" in text and "Welch" in text
    (found,) = cgh_bench.compare("good", "poor", work=work)
    assert found.interval is not None and found.interval[0] < found.difference < found.interval[1]
    assert found.p == pytest.approx(1 / 10_001) and found.test == "sign flips"
    assert found.over_seeds is not None
    (turned,) = cgh_bench.compare("poor", "good", work=work)
    assert repr(turned).split("(")[0] == repr(found).split("(")[0]
    assert found.images_needed(1) == pytest.approx((2.8015852 * found.spread) ** 2, abs=1)


def test_copies_of_one_model_cannot_be_told_apart() -> None:
    found = compared(side("A", answered(0.7, 0)), side("B", answered(0.7, 0)), "top1")
    assert (found.p, found.interval, found.difference, found.flips) == (1.0, (0.0, 0.0), 0.0, ())
    assert found.sentence().startswith("A and B do not differ significantly")


def test_single_runs_are_told_apart_by_mcnemars_exact_test() -> None:
    one, other = answered(0.7, 0), answered(0.6, 1)
    a, b = (kept.rank[:, 0] == 0 for kept in (one, other))
    found = compared(side("A", one), side("B", other), "top1")
    only = int((a & ~b).sum()), int((b & ~a).sum())
    assert found.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert found.test == "exact McNemar"
    assert tuple(sum(line[n] for line in found.flips) for n in (1, 2)) == only


def test_sign_flips_agree_with_mcnemar_where_both_can_be_computed() -> None:
    deltas = np.repeat([100.0, -100.0, 0.0], [40, 20, 300])
    exact = sign_flips(deltas)
    drawn = sign_flips(np.append(deltas, [1e-6]))
    assert drawn == pytest.approx(exact, abs=0.005)


def test_numbers_that_are_no_mean_over_images_are_resampled_with_their_images() -> None:
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, (40, 8, 8))
    maps = [np.where(draw.random(true.shape) < rate, true, (true + 1) % 3) for rate in (0.9, 0.6)]
    names = named_images("x/val", [str(n) for n in range(40)], "x")
    a, b = (segmentation(names, "abc", zip(true, given, strict=True)) for given in maps)
    runs = [(dataclasses.replace(result(name, 0.0), metrics=kept.metrics()),) for name, kept in (("A", a), ("B", b))]
    found = compared(*(Side(r[0].checkpoint_name, r, (k,)) for r, k in zip(runs, (a, b), strict=True)), "mIoU")
    assert found.test == "bootstrap of images"
    assert found.interval is not None and 0 < found.interval[0] < found.difference < found.interval[1]
    assert found.p is not None and found.p < 0.01
    assert found.flips == ()


def test_too_few_images_give_no_interval_and_say_why() -> None:
    few = images(29)
    found = compared(side("A", answered(1, 0, few)), side("B", answered(0, 0, few)), "top1")
    assert (found.p, found.interval) == (None, None)
    assert "on 29 images, too few for an interval (30 needed)" in found.sentence()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (images(399, "z"), "400 and 399; only in one: number 399"),
        (images(N, "y"), "names are the same, but not the content"),
    ],
)
def test_other_images_are_refused_and_it_is_said_which(other: GreyImages, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compared(side("A", answered(0.7, 0)), side("B", answered(0.7, 0, other)), "top1")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("good", "old"), "has no per-image predictions .*eval knn --again"),
        (("good", "nobody"), "unknown backbone 'nobody'"),
        (("good", "good"), "two different backbones"),
        (("good",), "two different backbones"),
        (("good", "poor", "--task", "linear"), "no protocol of task linear"),
        (("good", "poor", "same", "-o", "out"), "not 3"),
    ],
)
def test_what_cannot_be_compared_is_one_line(work: Path, names: Sequence[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        run(work, *names)
    assert "\n" not in str(error.value)


def test_p_values_are_corrected_by_holm() -> None:
    base = compared(side("A", answered(0.7, 0)), side("B", answered(0.6, 1)), "top1")
    given = [dataclasses.replace(base, p=p) for p in (0.01, 0.04, 0.03, None)]
    assert [each.p for each in holm(given)] == [pytest.approx(0.03), 0.06, 0.06, None]


def test_several_are_ranked(work: Path) -> None:
    text = run(work, "good", "poor", "same")
    assert text.count(" than ") >= 1 and "mean rank" in text and "one task" in text
    rows = sides(results.read(work / "results.jsonl")[0], work, ["good", "poor", "same"])
    ranking = rank([*rows, *rows])
    assert ranking.mean_rank.argmax() == 1
    assert ranking.critical == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 2)), abs=0.01)  # Demšar, table 5
    assert ranking.strength.argmin() == 1 and (ranking.low <= ranking.strength).all()
    assert ranking.wins[0, 1] + ranking.wins[1, 0] == pytest.approx(1)
    assert np.isnan(ranking.wins[0, 2])  # its first run is a copy


def test_bradley_terry_of_two_is_the_log_odds() -> None:
    wins = np.array([[[0.0, 30.0], [10.0, 0.0]]])
    (strength,) = bradley_terry(wins)
    assert strength[0] - strength[1] == pytest.approx(np.log(30.5 / 10.5))


def test_who_is_not_beaten_at_its_cost_is_marked(tmp_path: Path) -> None:
    flops = {"big": 9e9, "good": 2e9, "small": 2e9, "poor": 3e9}
    for (name, spent), rate in zip(flops.items(), (0.9, 0.8, 0.6, 0.5), strict=True):
        outcome = answered(rate, 0)
        outcome.save(tmp_path / name)
        origin = {"recipe": name, "cost": {"flops": spent, "images_per_second": 10.0}}
        record = result(name, outcome.metrics()["top1"], origin=origin, work=name, device=f"GPU of {name}")
        results.append(tmp_path / "results.jsonl", record)
    text = run(tmp_path, *flops, "--cost", "flops")
    marked = [line.split()[-1] for line in text.splitlines() if line.startswith("  * ")]
    assert "against GFLOPs per image" in text and marked == ["good", "big"]
    for cost, message in (
        ("speed", "GPU of big, GPU of good"),
        ("parameters", "no million parameters of"),
        ("money", "'money'"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path, *flops, "--cost", cost)


def test_flips_are_written_as_a_table(work: Path, tmp_path: Path) -> None:
    text = run(work, "good", "poor", "--output", str(tmp_path / "flips"))
    (path,) = (tmp_path / "flips").iterdir()
    assert f"written: {path}" in text
    lines = list(csv.reader(path.open()))
    assert lines[0] == ["task", "image", "target", "good", "poor"]
    assert all((line[2] == line[3]) != (line[2] == line[4]) for line in lines[1:])


def test_a_sheet_shows_the_images_asked_for(tmp_path: Path) -> None:
    from PIL import Image

    write_sheet(images(20), np.arange(10), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (8 * TILE, 2 * TILE)
