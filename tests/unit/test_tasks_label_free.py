"""Measures of features that need no labels, against closed forms and independent formulas."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from toy_images import toy_data

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.frozen import label_free
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.label_free import LabelFree

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("shape", [(50, 8), (8, 50)])
def test_the_spectrum_is_numpys(shape: tuple[int, int]) -> None:
    features = RANDOM.standard_normal(shape).astype(np.float32) + 3
    exact = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    assert label_free.singular_values(features) == pytest.approx(exact, rel=1e-6)
    covariance = np.linalg.eigvalsh(np.cov(features.T.astype(np.float64)))[::-1]
    assert label_free.variances(features)[:7] == pytest.approx(covariance[:7], rel=1e-6)


def test_rankme_counts_equal_directions() -> None:
    equal = np.repeat(np.eye(6, 10, dtype=np.float32), 5, axis=0)  # six of ten directions, each equally strong
    assert label_free.rankme(label_free.singular_values(equal), 1e-12) == pytest.approx(6, rel=1e-5)
    collapsed = np.ones((30, 10), np.float32)
    assert label_free.rankme(label_free.singular_values(collapsed), 1e-12) == pytest.approx(1, abs=1e-3)
    # No features of that size are expected to exceed noise, and that in turn not the width.
    assert 9 < label_free.rankme_of_gaussian(1_000, 10, 1e-7) < 10


def test_alpha_is_the_exponent_of_a_power_law() -> None:
    spectrum = 7.0 * np.arange(1, 201) ** -1.3
    assert label_free.power_law(spectrum, (4, 100)) == pytest.approx(1.3)
    assert label_free.power_law(spectrum[:60], (4, 100)) is None
    assert label_free.power_law(np.where(np.arange(200) < 50, spectrum, 0), (4, 100)) is None


def test_lidar_counts_directions_in_which_images_differ_more_than_their_views() -> None:
    rows, views, width = 4_000, 5, 12
    between = np.zeros((rows, width))
    between[:, :4] = 30 * RANDOM.standard_normal((rows, 4))  # four of twelve tell images apart
    features = (between[:, None] + RANDOM.standard_normal((rows, views, width))).astype(np.float32)
    assert label_free.lidar(features, 1e-4, 1e-7) == pytest.approx(4, rel=0.02)
    assert label_free.lidar(features[:3], 1e-4, 1e-7) is not None  # 3 · 4 differences of 12 numbers
    assert label_free.lidar(features[:2], 1e-4, 1e-7) is None


def test_alignment_and_uniformity_are_the_papers() -> None:
    views = RANDOM.standard_normal((20, 3, 6)).astype(np.float32)
    unit = views / np.linalg.norm(views, axis=2, keepdims=True)
    pairs = [((unit[:, a] - unit[:, b]) ** 2).sum(axis=1).mean() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert label_free.alignment(views) == pytest.approx(float(np.mean(pairs)), rel=1e-5)
    rows = views[:, 0]
    expected = np.log(np.exp(-2 * pdist(unit[:, 0]) ** 2).mean())
    assert label_free.uniformity(rows) == pytest.approx(float(expected), rel=1e-5)


def test_a_checkpoint_is_judged_without_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = LabelFree("toy", AS_IS, viewed=40, views=4, crop=Crop(32, (0.5, 1.0)))
    backbone, folders = random_checkpoint("test_resnet"), Folders(tmp_path, tmp_path / "cache")
    found = task.run(backbone, toy_data(), folders, 0)
    assert set(found) == {"rankme", "rankme_gaussian", "lidar", "alignment", "uniformity"}  # 40 images: no 100 ranks
    assert not caplog.messages
    fewer = replace(task, viewed=8).run(backbone, toy_data(), folders, 0)
    assert found.keys() - fewer.keys() == {"lidar"}
    assert ["8 images in 4 crops" in line and "96 numbers" in line for line in caplog.messages] == [True]
    assert 1 <= found["rankme"] < found["rankme_gaussian"] <= 40
    assert len(np.load(tmp_path / "spectrum.npz")["variances"]) == 40


@pytest.mark.parametrize("wrong", [{"views": 1}, {"eps": 0.0}, {"ranks": (5, 5)}])
def test_values_without_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=str(next(iter(wrong)))):
        LabelFree(**wrong)  # type: ignore[arg-type]
