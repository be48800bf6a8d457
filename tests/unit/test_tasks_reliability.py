"""Calibration, out-of-distribution detection and corruptions of a linear probe, against independent formulas."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import brier_score_loss, log_loss
from toy_images import toy_data

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.corruptions import CORRUPTIONS, corrupted
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen import confidence
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.calibration import Calibration
from cgh_bench.tasks.corruptions import Corruptions
from cgh_bench.tasks.ood import OutOfDistribution

RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint("test_resnet")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(task: Any, checkpoint: Checkpoint, folder: Path, cache: Path) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    data = task.from_pair(toy_data(), cache)
    task.check(data)
    found: dict[str, float] = task.run(checkpoint, data, Folders(folder, cache), 0)
    return found


def test_every_bin_counts_the_most_confident_too() -> None:
    # All in the last bin of equal width: certain, and right three times of four.
    scores = torch.tensor([[50.0, 0.0]] * 8)
    truth = torch.tensor([0, 0, 0, 1] * 2)
    found = confidence.calibration(scores, truth, 15)
    assert found["ece"] == pytest.approx(25)
    assert found["ece_equal_count"] == pytest.approx(100 * np.mean([0, 0, 0, 1] * 2))  # bins of one image each
    assert found["rms"] == pytest.approx(25)


def test_a_perfectly_calibrated_classifier_has_no_gap() -> None:
    scores = torch.tensor([[np.log(3.0), 0.0]] * 400)  # 75 % sure
    truth = torch.tensor([0, 0, 0, 1] * 100)
    assert confidence.calibration(scores, truth, 15)["ece"] == pytest.approx(0, abs=1e-6)
    assert confidence.temperature(scores, truth) == pytest.approx(1, abs=1e-3)
    assert confidence.temperature(7 * scores, truth) == pytest.approx(7, rel=1e-3)


def test_brier_and_nll_are_scikit_learns() -> None:
    scores = torch.from_numpy(RANDOM.standard_normal((60, 2)))
    truth = torch.from_numpy(RANDOM.integers(0, 2, 60))
    found, probabilities = confidence.calibration(scores, truth, 15), torch.softmax(scores, dim=1).numpy()
    assert found["nll"] == pytest.approx(log_loss(truth, probabilities))
    assert found["brier"] == pytest.approx(2 * brier_score_loss(truth, probabilities[:, 1]))  # both classes count


def test_selective_accuracy_is_of_the_most_confident() -> None:
    scores = torch.tensor([[9.0, 0.0], [8.0, 0.0], [0.1, 0.0], [0.2, 0.0]])
    truth = torch.tensor([0, 0, 1, 1])
    assert confidence.accuracy_at(0.5, scores, truth) == 100
    assert confidence.accuracy_at(1.0, scores, truth) == 50


def test_auroc_and_fpr_by_hand() -> None:
    known, unknown = np.arange(1.0, 21), np.array([0.5, 1.5, 2.5, 30.0])
    auroc, passed = confidence.told_apart(known, unknown)
    assert auroc == pytest.approx(100 * (20 + 19 + 18 + 0) / 80)
    assert passed == 50  # at 2, where 19 of 20 known pass: 2.5 and 30


def test_mahalanobis_is_scikit_learns_to_the_nearest_class() -> None:
    train, labels = RANDOM.standard_normal((80, 5)).astype(np.float32), np.arange(80) % 3
    queries = RANDOM.standard_normal((7, 5)).astype(np.float32)
    means = np.stack([train[labels == c].mean(axis=0) for c in range(3)])
    shared = EmpiricalCovariance(assume_centered=True).fit(train - means[labels])
    expected = [min(shared.mahalanobis((q - means).astype(np.float64))) for q in queries]
    assert -confidence.mahalanobis(train, labels, queries, ridge=1e-12) == pytest.approx(expected, rel=1e-4)


def test_the_temperature_is_learned_from_train_alone(checkpoint: Checkpoint, tmp_path: Path, cache: Path) -> None:
    task = Calibration("toy", AS_IS, weight_decays=(1e-4, 1e-2))
    found = run(task, checkpoint, tmp_path, cache)
    data = toy_data()
    upside_down = replace(data, val=replace(data.val, labels=3 - data.val.labels))
    other = task.run(checkpoint, upside_down, Folders(tmp_path, cache), 0)
    assert other["temperature"] == found["temperature"]
    assert other["nll"] != found["nll"]
    bins = list(csv.DictReader((tmp_path / "reliability.csv").open()))
    assert sum(int(each["images"]) for each in bins) == len(data.val)
    assert other["ece"] == pytest.approx(
        100 * sum(int(b["images"]) * abs(float(b["confidence"]) - float(b["accuracy"])) for b in bins) / len(data.val)
    )


def test_noise_is_told_from_pictures(checkpoint: Checkpoint, tmp_path: Path, cache: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "noise" / split / "n").mkdir(parents=True)
        for number in range(6):
            pixels = RANDOM.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "noise" / split / "n" / f"{number}.png")
    task = OutOfDistribution(
        "toy", AS_IS, feature="layer1", weight_decays=(1e-2,), against=str(tmp_path / "noise"), k=3
    )
    narrow = random_checkpoint("test_resnet")  # 32 numbers, of 40 images of 4 classes
    found = run(task, narrow, tmp_path / "run", cache)
    assert found["auroc_knn"] == 100
    assert found["fpr95_knn"] == 0
    assert len(found) == 8
    without = replace(task, mahalanobis=False)
    assert run(without, narrow, tmp_path / "run", cache) == {k: v for k, v in found.items() if "mahalanobis" not in k}
    with np.load(tmp_path / "run" / "scores.npz") as scores:
        assert len(scores["energy_1"]) == 6


def test_ood_needs_another_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="against"):
        OutOfDistribution("toy", AS_IS).from_pair(toy_data(), tmp_path)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_severity_and_repeats(name: str) -> None:
    images = toy_data(val=2, side=64).val
    off = []
    for severity in (1, 3, 5):
        damaged = corrupted(images, AS_IS, name, severity)
        image = damaged.image(1)
        assert image.dtype == torch.uint8
        assert image.shape == (3, 64, 64)
        assert torch.equal(image, corrupted(images, AS_IS, name, severity).image(1))
        off.append(float((image.float() - images.image(1).float()).abs().mean()))
    assert 0 < off[0] < off[1] < off[2]


def test_corruptions_are_the_papers() -> None:
    images = toy_data(val=2, side=64).val
    clean = images.image(0).double() / 255
    noisy = corrupted(images, AS_IS, "gaussian_noise", 1).image(0).double() / 255
    assert float((noisy - clean).std()) == pytest.approx(0.08, rel=0.1)
    changed = corrupted(images, AS_IS, "impulse_noise", 5).image(0)
    assert float(((changed == 0) | (changed == 255)).double().mean()) == pytest.approx(0.27, abs=0.02)
    flat = corrupted(images, AS_IS, "contrast", 2).image(0).double() / 255
    assert float(flat.std() / clean.std()) == pytest.approx(0.3, rel=0.02)
    bright = corrupted(images, AS_IS, "brightness", 2).image(0).double() / 255
    assert (bright - torch.clamp(clean + 0.2, max=1)).abs().max() < 0.01  # grey: the value is the pixel


def test_a_probe_of_clean_images_is_asked_about_corrupted_ones(
    checkpoint: Checkpoint, tmp_path: Path, cache: Path
) -> None:
    task = Corruptions("toy", AS_IS, weight_decays=(1e-2,), corruptions=("brightness", "contrast"), severities=(1, 5))
    found = run(task, checkpoint, tmp_path, cache)
    grid = [[float(v) for v in row[1:]] for row in list(csv.reader((tmp_path / "corruptions.csv").open()))[1:]]
    assert found["top1_corrupted"] == pytest.approx(np.mean(grid), abs=0.01)
    assert found["top1_worst"] == pytest.approx(np.mean(grid, axis=1).min(), abs=0.01)
    assert found["retained"] == pytest.approx(100 * found["top1_corrupted"] / found["top1"])


@pytest.mark.parametrize("wrong", [{"corruptions": ("fog",)}, {"severities": (6,)}, {"severities": ()}])
def test_corruptions_that_there_are_not_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="fog|6|at least one"):
        Corruptions("toy", AS_IS, **wrong).check(toy_data())
