"""Correspondence: exact ground truth, PCK by hand in its three averages, and SPair-71k's layout."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgh_bench import outcomes
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.demo.warped import WarpSettings, animal_pairs
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.pairs import Pair, spair
from cgh_bench.outcomes.base import named_images
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.correspondence import Correspondence, matches, scored

FEW = WarpSettings(pairs=3, side=64, points=5)


def test_the_same_points_of_a_silhouette_lie_on_it_in_both_pictures() -> None:
    few = animal_pairs(FEW)
    assert len(few.images) == 6 and few.fingerprint != animal_pairs(replace(FEW, seed=1)).fingerprint
    for pair in few.pairs:
        for number, points in ((pair.source, pair.source_points), (pair.target, pair.target_points)):
            image = few.images.image(number).double()
            x, y = np.rint(points).astype(int).T
            assert ((points >= 0) & (points < 64)).all()
            on, border = image[:, y, x].mean(), image[:, 0].mean()
            assert on > border + 20  # pale animals on dim photographs
        # One similarity map takes all points over: a mirrored one has a negative determinant.
        ones = np.column_stack([pair.source_points, np.ones(5)])
        matrix, *_ = np.linalg.lstsq(ones, pair.target_points, rcond=None)
        assert np.abs(ones @ matrix - pair.target_points).max() < 1e-3
        assert abs(matrix[:2].T @ matrix[:2] - abs(np.linalg.det(matrix[:2])) * np.eye(2)).max() < 1e-3


def test_trap_the_averages_differ() -> None:
    errors = [np.array([0.05, 0.05, 0.05, 0.2]), np.array([0.2]), np.array([0.1])]
    kept = scored(named_images("few", ["a", "b", "c"], ""), ("cat", "dog"), [0, 0, 1], errors, {"": 0.1})
    found = kept.metrics()
    assert found["pck_point"] == pytest.approx(100 * 4 / 6)
    assert found["pck_image"] == pytest.approx(100 * (0.75 + 0 + 1) / 3)
    assert found["pck_class"] == pytest.approx(100 * (0.375 + 1) / 2)
    drawn = kept.measure("pck_class", np.array([[2, 1, 0]]))  # no pair of one class among these
    assert drawn == pytest.approx([100 * (2 * 0.75 + 0) / 3])


def test_a_point_is_found_where_its_feature_is() -> None:
    """Each position has a feature of its own; the target is the source moved by one patch, and not square."""
    features = torch.eye(16).reshape(1, 16, 4, 4)
    moved = features.roll((1, 1), dims=(2, 3))
    points = np.array([[3.5, 3.5], [11.5, 19.5]])  # centres of patches of 8 pixels
    pair = Pair(0, 1, 0, points, points, ((32, 32), (64, 32)), 10.0)
    found = matches(features, moved, pair, 32, "bilinear")
    assert np.abs(found - [[2 * 12 - 0.5, 11.5], [2 * 20 - 0.5, 27.5]]).max() <= 2
    # Of the equal similarities within a patch the first is taken.
    nearest = matches(features, moved, pair, 32, "nearest")
    assert nearest.tolist() == [[16.5, 8.0], [32.5, 24.0]]


def test_pck_is_that_of_a_loop_over_pixels() -> None:
    """An own loop: read the point's feature, compare it with every pixel of the enlarged map, take the nearest hit."""
    draw = torch.Generator().manual_seed(0)
    source, target = torch.randn(1, 6, 4, 4, generator=draw), torch.randn(1, 6, 4, 4, generator=draw)
    points = np.array([[3.5, 3.5], [19.5, 11.5], [27.5, 27.5]])  # centres of patches of 8 pixels: no interpolation
    pair = Pair(0, 1, 0, points, points, ((32, 32), (32, 32)), 20.0)
    found = matches(source, target, pair, 32, "nearest")
    for (x, y), place in zip(points, found, strict=True):
        vector = source[0, :, int(y) // 8, int(x) // 8]
        best, where = -2.0, (0, 0)
        for row in range(32):
            for column in range(32):
                other = target[0, :, row // 8, column // 8]
                cosine = float(vector @ other / vector.norm() / other.norm())
                if cosine > best + 1e-6:
                    best, where = cosine, (column, row)
        assert tuple(place) == where
    errors = np.linalg.norm(found - points, axis=1) / 20
    kept = scored(named_images("one", ["a"], ""), ("cat",), [0], [errors], {"": 0.5})
    assert kept.metrics()["pck_point"] == pytest.approx(100 * np.mean([np.hypot(*d) <= 10 for d in found - points]))


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224"])
def test_a_picture_corresponds_with_itself(arch: str, tmp_path: Path) -> None:
    few = animal_pairs(FEW)
    own = [replace(pair, target=pair.source, target_points=pair.source_points, extent=200.0) for pair in few.pairs]
    task = Correspondence("animal_pairs", size=128, upsampling="bilinear")
    same = task.run(random_checkpoint(arch), replace(few, pairs=tuple(own)), Folders(tmp_path, tmp_path), 0)
    assert same["pck_point"] > 90
    assert outcomes.load(tmp_path).metrics() == pytest.approx(same)
    lines = (tmp_path / "points.csv").read_text().splitlines()
    assert len(lines) == 1 + 15
    assert (tmp_path / "pictures/matches.png").stat().st_size > 1000
    assert "in the cache" in task.plan(random_checkpoint(arch), few, Folders(tmp_path, tmp_path))[0]


def annotate(folder: Path, **changes: object) -> None:
    given = {
        "category": "cat", "src_imname": "a.jpg", "trg_imname": "b.jpg", "src_imsize": [64, 48, 3],
        "trg_imsize": [64, 64, 3], "src_kps": [[10, 20], [30, 40]], "trg_kps": [[12, 20], [33, 40]],
        "trg_bndbox": [10, 10, 50, 40],
    }  # fmt: skip
    (folder / "PairAnnotation/test").mkdir(parents=True, exist_ok=True)
    (folder / "PairAnnotation/test/000001-a-b:cat.json").write_text(json.dumps(given | changes))


def test_spair_in_its_layout_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "SPair-71k"
    with pytest.raises(UserError, match="has 0 pairs"):
        spair(tmp_path, None)
    annotate(folder)
    with pytest.raises(UserError, match="has 1 pairs, 12234 were published"):
        spair(tmp_path, None)
    (folder / SUBSET).touch()
    with pytest.raises(UserError, match=r"2 images .*first: JPEGImages/cat/a.jpg"):
        spair(tmp_path, None)
    for name, size in (("a.jpg", (64, 48)), ("b.jpg", (64, 64))):
        (folder / "JPEGImages/cat").mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 90).save(folder / "JPEGImages/cat" / name)
    pairs = spair(tmp_path, None)
    (pair,) = pairs.pairs
    assert pairs.subset == "1 of 12,234 pairs"
    assert (pair.extent, pair.sizes, pairs.classes) == (40.0, ((64, 48), (64, 64)), ("cat",))
    metrics = Correspondence("spair71k", size=64).run(
        random_checkpoint("test_resnet"), pairs, Folders(tmp_path, tmp_path), 0
    )
    assert set(metrics) >= {"pck_point", "pck_point_0.05", "pck_class_0.01"}
    for change, match in (
        ({"trg_kps": [[1, 2]]}, "has 2 and 1 points"),
        ({"trg_bndbox": [10, 10, 10, 10]}, "empty box"),
        ({"src_imsize": []}, "not an annotation"),
    ):
        annotate(folder, **change)
        with pytest.raises(UserError, match=match):
            spair(tmp_path, None)


def test_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="animal_pairs"):
        Correspondence("animals").load_data(tmp_path)
