"""Logistic regression, SVMs and clusters on frozen features."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC
from toy_images import toy_data, toy_pair

from cgh_bench import outcomes
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.data import catalog
from cgh_bench.data.image_set import DataPair, FetchedImages, GreyImages
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen.features import extract
from cgh_bench.frozen.selection import hold_out
from cgh_bench.tasks import svm
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.clustering import Clusters, matched
from cgh_bench.tasks.finetune import FineTune
from cgh_bench.tasks.knn import KNN
from cgh_bench.tasks.linear_sgd import LinearSgd
from cgh_bench.tasks.logistic import LogisticRegression
from cgh_bench.tasks.svm import Svm, average_precision


@pytest.fixture(scope="module")
def backbone() -> Checkpoint:
    return random_checkpoint("test_resnet")


@pytest.fixture(scope="module")
def wide() -> Checkpoint:
    return random_checkpoint("resnet18")


Pair = tuple[GreyImages, GreyImages]


def run(task: Any, backbone: Checkpoint, folder: Path, pair: Pair | None = None) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    data = DataPair("toy", *(pair or toy_pair()))
    task.check(data)
    return task.run(backbone, data, Folders(folder, folder / "cache"), 0)


def test_logistic_regression_is_scikit_learns_at_the_chosen_strength(backbone: Checkpoint, tmp_path: Path) -> None:
    task = LogisticRegression("toy", AS_IS, strengths=(1e-3, 0.1, 10.0), tolerance=1e-7)
    metrics = run(task, backbone, tmp_path)
    grid = json.loads((tmp_path / "grid.json").read_text())
    assert grid["chosen"] == max(zip(grid["held_out"], task.strengths, strict=True))[1]
    train, val = (extract(backbone, images, AS_IS, "layer4", tmp_path / "cache") for images in toy_pair())
    mean, deviation = train.features.mean(axis=0), train.features.std(axis=0)
    deviation[deviation == 0] = np.inf
    best = Reference(C=1 / (grid["chosen"] * 40), tol=1e-10, max_iter=10_000)
    best.fit((train.features - mean) / deviation, train.labels)
    expected = 100 * best.score((val.features - mean) / deviation, val.labels)
    assert metrics["top1"] == metrics["accuracy"] == pytest.approx(expected)
    assert metrics["accuracy_selected_on_val"] == max(grid["val"])


def test_by_c_it_is_scikit_learns_on_features_as_they_are(wide: Checkpoint, tmp_path: Path) -> None:
    """The protocol of DINOv2: C chosen on a part of train, then the same C on all of it: its decay is another there."""
    cs = (1e-3, 0.1)
    strengths = tuple(1 / c for c in cs)
    task = LogisticRegression(
        "toy", AS_IS, strengths=strengths, tolerance=1e-9, held_out=0.25, scaling="none", summed=True
    )
    metrics = run(task, wide, tmp_path)
    grid = json.loads((tmp_path / "grid.json").read_text())
    train, val = (extract(wide, images, AS_IS, "layer4", tmp_path / "cache") for images in toy_pair())
    fitted, held = hold_out(toy_pair()[0], 0.25, 0)
    references = [Reference(C=c, tol=1e-12, max_iter=10_000) for c in cs]
    expected = [
        100 * r.fit(train.features[fitted], train.labels[fitted]).score(train.features[held], train.labels[held])
        for r in references
    ]
    assert grid["held_out"] == pytest.approx(expected)
    on_val = [100 * r.fit(train.features, train.labels).score(val.features, val.labels) for r in references]
    assert grid["val"] == pytest.approx(on_val, abs=4.2)  # a tied image of 24
    assert metrics["accuracy"] == grid["val"][strengths.index(grid["chosen"])]


def test_low_shots_at_unit_length_without_intercept(backbone: Checkpoint, tmp_path: Path) -> None:
    """The protocol of MSN: one strength, nothing held out, and test images that do not change each other's answers."""
    task = LogisticRegression(
        "toy", AS_IS, strengths=(0.0025,), tolerance=1e-8, scaling="unit", summed=True, intercept=False
    )
    train, val = toy_pair(train=4)  # one image a class
    metrics = run(task, backbone, tmp_path, (train, val))
    assert json.loads((tmp_path / "grid.json").read_text())["held_out"] == []
    banks = [extract(backbone, images, AS_IS, "layer4", tmp_path / "cache").features for images in (train, val)]
    x, y = (bank - banks[0].mean(axis=0) for bank in banks)
    x, y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y))
    reference = Reference(C=1 / 0.0025, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, train.labels)
    assert metrics["top1"] == pytest.approx(100 * reference.score(y, val.labels), abs=4.2)
    rows = np.arange(12)
    half = replace(val, labels=val.labels[rows], pixels=val.pixels[rows], content="half")
    kept = [outcomes.load(tmp_path).predicted[:12]]
    run(task, backbone, tmp_path, (train, half))
    assert np.array_equal(kept[0], outcomes.load(tmp_path).predicted)


def test_the_authors_validation_images_choose(backbone: Checkpoint, tmp_path: Path) -> None:
    train, val = toy_pair()
    # Where the images to choose on are labelled wrongly, another strength is chosen: they are what is looked at.
    rows = np.arange(20, 40)
    upside_down = replace(train, labels=np.where(np.arange(40) >= 20, 3 - train.labels, train.labels), held_out=rows)
    task = LogisticRegression("toy", AS_IS, strengths=(1e-3, 1e3))
    run(task, backbone, tmp_path, (upside_down, val))
    assert json.loads((tmp_path / "grid.json").read_text())["held_out"][0] < 30


def test_the_mean_over_classes_counts_each_class_alike(backbone: Checkpoint, tmp_path: Path) -> None:
    train, val = toy_pair()
    rows = np.flatnonzero((val.labels == 0) | (np.arange(24) < 6))
    skewed = replace(val, labels=val.labels[rows], pixels=val.pixels[rows], content="skewed")
    task = LogisticRegression("toy", AS_IS, metric="class_balanced", strengths=(1e3,))
    metrics = run(task, backbone, tmp_path, (train, skewed))
    assert metrics["accuracy"] == metrics["class_balanced"] != metrics["top1"]


def test_every_logistic_task_takes_its_data_sets_own_transform_and_metric() -> None:
    for name, task in registered("cgh_bench.tasks", "TASKS").items():
        entry = catalog().get(task.data)
        if isinstance(task, LogisticRegression) and isinstance(entry, FetchedImages):
            metric = task.metric if not name.endswith("_msn") else entry.metric
            assert (task.transform, metric) == (entry.transform, entry.metric), name
    strengths = LogisticRegression().strengths
    assert (len(strengths), strengths[0], strengths[-1]) == (45, 1e-6, 1e5)


def test_average_precision_by_hand_and_beside_scikit_learn() -> None:
    present = np.array([True, False, True, False, True])
    scores = np.array([5.0, 4, 3, 2, 1])
    # precision at the hits 1, 2/3, 3/5; falling from the right it stays so.
    assert average_precision(scores, present) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # precision 0, 1/2, 2/3: both hits get the 2/3 that comes later.
    assert average_precision(scores[:3], np.array([False, True, True])) == pytest.approx(2 / 3)
    assert average_precision(scores, np.zeros(5, bool)) == 0
    rng = np.random.default_rng(0)
    many, hits = rng.normal(size=300), rng.random(300) < 0.2
    theirs = average_precision_score(hits, many)
    assert theirs <= average_precision(many, hits) < theirs + 0.05


def test_svm_of_one_cost_is_scikit_learns(backbone: Checkpoint, tmp_path: Path) -> None:
    metrics = run(Svm("toy", AS_IS, costs=(1.0,), shots=(), shot_costs=(1.0,)), backbone, tmp_path)
    train, val = (extract(backbone, images, AS_IS, "layer4", tmp_path / "cache") for images in toy_pair())
    unit = [bank.features / np.linalg.norm(bank.features, axis=1, keepdims=True) for bank in (train, val)]
    precisions = []
    for label in range(4):
        machine = LinearSVC(C=1.0, class_weight={1: 2, 0: 1}, dual=True, max_iter=2000, random_state=0)
        machine.fit(unit[0].astype(np.float64), (train.labels == label).astype(int))
        scores = machine.decision_function(unit[1].astype(np.float64))
        precisions.append(average_precision(scores, val.labels == label))
    assert metrics == {"mAP": pytest.approx(100 * np.mean(precisions), abs=0.2)} | {
        "mAP_selected_on_val": metrics["mAP"]
    }


def test_shots_draw_so_many_and_more_help(wide: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []
    fit = svm._OneClass._fit

    def noting(self: Any, cost: float, rows: Any) -> Any:
        drawn.append((int((self.marks[rows] == 1).sum()), int((self.marks[rows] == 0).sum())))
        return fit(self, cost, rows)

    monkeypatch.setattr(svm._OneClass, "_fit", noting)
    task = Svm("toy", AS_IS, costs=(1.0,), shots=(1, 8), shot_costs=(1.0,), repeats=3)
    metrics = run(task, wide, tmp_path)
    fits = len(drawn)
    planned = task.plan(wide, toy_data(), Folders(tmp_path, tmp_path))[-1]
    assert planned.startswith(f"{fits} linear SVMs on up to 40 images each, about ")
    assert planned.endswith(" s, at most 1 MB of memory")
    assert drawn.count((1, 3)) == 12
    assert drawn.count((8, 24)) == 12
    assert metrics["mAP_k8"] > metrics["mAP_k1"]
    assert metrics["mAP_k1_selected_on_val"] >= metrics["mAP_k1"]
    assert run(task, wide, tmp_path) == metrics


def test_what_is_marked_as_not_counted_is_not(backbone: Checkpoint, tmp_path: Path) -> None:
    train, val = toy_pair()
    marks = [np.eye(4, dtype=np.int64)[images.labels] for images in (train, val)]
    pair = replace(train, labels=marks[0]), replace(val, labels=marks[1])
    task = Svm("toy", AS_IS, costs=(1.0,), shots=(), shot_costs=(1.0,))
    plain = run(task, backbone, tmp_path / "plain", pair)
    assert plain == run(task, backbone, tmp_path / "single")
    # Wrong marks on some images change the answer; the same images marked -1 do not count as wrong.
    wrong = marks[1].copy()
    wrong[:8] = 1 - wrong[:8]
    ignored = np.where(wrong == marks[1], marks[1], -1)
    worse = run(task, backbone, tmp_path / "wrong", (pair[0], replace(val, labels=wrong)))
    spared = run(task, backbone, tmp_path / "spared", (pair[0], replace(val, labels=ignored)))
    assert worse["mAP"] < min(plain["mAP"], spared["mAP"])
    with pytest.raises(UserError, match="multi-label"):
        run(LogisticRegression("toy", AS_IS), backbone, tmp_path, pair)


@pytest.mark.parametrize(
    ("train_labels", "val_labels", "message"),
    [
        ([0] * 3 + [1] * 20 + [2, 3] * 8 + [1], [0, 1, 2, 3] * 6, "class 'a' of toy/train has 3 positive"),
        ([0, 1, 2, 3] * 10, [0, 1, 2] * 8, "no test image has class 'd'"),
    ],
)
def test_too_few_images_for_svms(
    backbone: Checkpoint, tmp_path: Path, train_labels: list[int], val_labels: list[int], message: str
) -> None:
    train, val = toy_pair()
    pair = replace(train, labels=np.array(train_labels)), replace(val, labels=np.array(val_labels))
    with pytest.raises(UserError, match=message):
        run(Svm("toy", AS_IS, costs=(1.0,), shots=(2,), shot_costs=(1.0,)), backbone, tmp_path, pair)


@pytest.mark.parametrize(("found", "right"), [([2, 2, 2, 0, 0, 1], 6), ([0] * 6, 3), ([1, 1, 0, 0, 0, 0], 4)])
def test_clusters_are_matched_to_classes_one_each(found: list[int], right: int) -> None:
    truth = np.array([0, 0, 0, 1, 1, 2])
    classes = matched(truth, np.array(found), 3)
    assert sorted(classes) == [0, 1, 2]
    assert (classes[found] == truth).sum() == right


def test_clusters_of_well_parted_images_are_the_classes(backbone: Checkpoint, tmp_path: Path) -> None:
    train, val = toy_pair()
    levels = (40 + 60 * val.labels)[:, None, None] * np.ones((1, 32, 32))
    flat = replace(val, pixels=levels.astype(np.uint8), content="flat")
    metrics = run(Clusters("toy", AS_IS), backbone, tmp_path, (train, flat))
    assert metrics == pytest.approx({"NMI": 100, "AMI": 100, "ARI": 100, "accuracy": 100})
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 32)).astype(np.uint8)
    by_chance = run(Clusters("toy", AS_IS), backbone, tmp_path, (train, replace(val, pixels=noise, content="noise")))
    assert abs(by_chance["ARI"]) < 25


@pytest.mark.parametrize("count", [3, 4])
def test_clusters_need_more_images_than_classes(count: int) -> None:
    train, val = toy_pair()
    few = replace(val, labels=val.labels[:count], pixels=val.pixels[:count], content="few")
    with pytest.raises(UserError, match=f"has {count} images of 4 classes"):
        Clusters("toy", AS_IS).check(DataPair("toy", train, few))


@pytest.mark.parametrize("task", [KNN("toy", AS_IS), LogisticRegression("toy", AS_IS), FineTune("toy", AS_IS)])
def test_one_class_and_a_val_that_is_train_are_refused(task: Any) -> None:
    train, val = toy_pair()
    with pytest.raises(UserError, match="contain the same images"):
        task.check(DataPair("toy", train, train))
    alone = [replace(images, classes=("a",), labels=0 * images.labels) for images in (train, val)]
    with pytest.raises(UserError, match="has one class \\('a'\\)"):
        task.check(DataPair("toy", *alone))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogisticRegression(strengths=()), "strengths"),
        (lambda: LogisticRegression(held_out=0.0), "held_out 0.0"),
        (lambda: Svm(costs=(0.0,)), "costs"),
        (lambda: Svm(shots=(0,)), "shots"),
        (lambda: Clusters(starts=0), "starts 0"),
    ],
)
def test_impossible_settings(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (LogisticRegression("toy", AS_IS), "class 'd' has 0 train images"),
        (LinearSgd("toy", transform=AS_IS, held_out=0.1), "class 'd' has 0 train images"),
        (Svm("toy", AS_IS, shots=()), "class 'a' of toy/train has 1 positive"),
        (Clusters("toy", AS_IS), "has 3 images of 4 classes"),
    ],
)
def test_too_few_images_are_refused_before_any_work(task: Any, message: str) -> None:
    train, val = (replace(images, labels=images.labels[:3], pixels=images.pixels[:3]) for images in toy_pair())
    with pytest.raises(UserError, match=message):
        task.check(DataPair("toy", train, val))


def test_features_that_are_not_finite_name_the_images(backbone: Checkpoint, tmp_path: Path) -> None:
    first, kernels = next(iter(backbone.weights.items()))
    broken = replace(backbone, weights={**backbone.weights, first: kernels * torch.nan})
    for task in (LogisticRegression("toy", AS_IS), Svm("toy", AS_IS, shots=()), Clusters("toy", AS_IS)):
        with pytest.raises(UserError, match="not finite"):
            run(task, broken, tmp_path)
