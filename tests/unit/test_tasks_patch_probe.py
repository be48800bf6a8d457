"""CAPI's classifiers of patches: labels, votes, distances, and a choice that never sees val."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dense_folder import write
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.segmented import VOID, SegmentedPair, load_segmented
from cgh_bench.frozen.neighbours import neighbours
from cgh_bench.frozen.patches import extract_patches
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.patch_probe import PatchKnn, PatchLogistic, PatchProbe, as_cosine, majority, pixels_of, votes


@pytest.fixture(scope="module")
def trunk() -> Checkpoint:
    return random_checkpoint("resnet18")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SegmentedPair:
    folder = write(tmp_path_factory.mktemp("dense") / "squares")
    return load_segmented(str(folder), folder.parent / "cache")


def run(task: PatchProbe, trunk: Checkpoint, pair: SegmentedPair, folder: Path) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    task.check(pair)
    return task.run(trunk, pair, Folders(folder, folder.parent / "cache"), 0)


def test_a_patch_has_the_commonest_value_of_its_pixels() -> None:
    pixels = np.array([[0, 1, 1, 2], [2, 2, 1, 1], [VOID, VOID, VOID, 0]], np.uint8)
    assert majority(pixels, 3).tolist() == [1, 1, VOID]


def test_votes_are_for_each_pixel_and_void_has_none() -> None:
    around = np.array([[[0, 2, VOID], [1, 2, VOID], [1, 0, 2]]], np.uint8)
    assert votes(around, 3).tolist() == [[1, 2, 2]]


def test_euclidean_neighbours_are_sklearns() -> None:
    rng = np.random.default_rng(0)
    bank = (rng.normal(size=(300, 7)) * rng.uniform(0.2, 3, (300, 1))).astype(np.float32)
    queries = rng.normal(size=(40, 7)).astype(np.float32)
    _, rows = neighbours(*as_cosine(bank, queries, "l2"), 5)
    reference = NearestNeighbors(n_neighbors=5).fit(bank).kneighbors(queries, return_distance=False)
    assert (rows == reference).all()
    assert (neighbours(*as_cosine(bank, queries, "cosine"), 5)[1] != reference).any()


def test_logistic_is_scikit_learns_on_patches(trunk: Checkpoint, pair: SegmentedPair, tmp_path: Path) -> None:
    task = PatchLogistic("squares", size=64, feature="layer2", cs=(1e-4, 1e-3), tolerance=1e-4)
    metrics = run(task, trunk, pair, tmp_path / "run")
    grid = json.loads((tmp_path / "run/grid.json").read_text())
    assert metrics["mIoU_held_out"] == max(grid["held_out"]) and metrics["mIoU"] > 30
    train, val = (extract_patches(trunk, part, 64, "layer2", tmp_path / "cache") for part in (pair.train, pair.val))
    labels = majority(pixels_of(pair.train, 64, train.grid), 4)
    known = labels != VOID
    mean, deviation = train.features[known].mean(0), train.features[known].std(0)
    theirs = LogisticRegression(C=grid["chosen"], tol=1e-10, max_iter=10_000)
    theirs.fit((train.features[known] - mean) / deviation, labels[known])
    expected = theirs.predict((val.features - mean) / deviation)
    written = np.stack([np.asarray(Image.open(tmp_path / f"run/predictions/{i}.png")) for i in range(3)])
    assert (written[:, 4::8, 4::8].ravel() == expected).mean() > 0.98


def test_knn_chooses_on_train_alone(trunk: Checkpoint, pair: SegmentedPair, tmp_path: Path) -> None:
    task = PatchKnn("squares", size=64, feature="layer2", ks=(1, 3))
    metrics = run(task, trunk, pair, tmp_path / "run")
    assert metrics["mIoU"] > 30
    grid = json.loads((tmp_path / "run/grid.json").read_text())
    assert len(grid["points"]) == 4
    assert metrics["mIoU_held_out"] == max(value for *_, value in grid["points"])
    one = replace(pair.val, paths=pair.val.paths[:1], fingerprint="v")
    swapped = replace(pair, found=lambda: (pair.train, one, "v"))
    other = run(task, trunk, swapped, tmp_path / "other")
    assert json.loads((tmp_path / "other/grid.json").read_text()) == grid and other["mIoU"] != metrics["mIoU"]


def test_what_cannot_be_used_is_named(trunk: Checkpoint, pair: SegmentedPair) -> None:
    with pytest.raises(UserError, match="has one image"):
        PatchKnn("squares").check(replace(pair, found=lambda: (pair.train.subset(np.array([0])), pair.val, "f")))
    for fields, match in (({"held_out": 1.0}, "held_out=1"), ({"distances": ("l1",)}, "cosine or l2")):
        with pytest.raises(UserError, match=match):
            PatchKnn(**fields)  # type: ignore[arg-type]
