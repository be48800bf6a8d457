"""In-context segmentation: neighbours' labels, the two published variants, and the same mIoU as elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_folder import write
from PIL import Image
from sklearn.metrics import jaccard_score
from torchvision.transforms import RandomResizedCrop

from cgh_bench import outcomes
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.segmented import VOID, SegmentedPair, load_segmented
from cgh_bench.frozen.overlap import confusion, iou, segmentation_metrics
from cgh_bench.frozen.patches import class_counts, extract_patches, feature_map, patch_pixels, resize_map
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.incontext import AREAS, HUMMINGBIRD_STD, InContext, cropped, rarest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("dense") / "squares")


@pytest.fixture(scope="module")
def pair(folder: Path) -> SegmentedPair:
    return load_segmented(str(folder), folder.parent / "cache")


@pytest.fixture(scope="module")
def trunk() -> Checkpoint:
    return random_checkpoint("test_resnet")


def run(task: Any, trunk: Checkpoint, pair: Any, folder: Path, seed: int = 0) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    task.check(pair)
    return task.run(trunk, pair, Folders(folder, folder.parent / "cache"), seed)


TASK = InContext("squares", size=64, feature="layer2", k=5)


def test_miou_is_mmsegmentations_and_sklearns() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, (6, 9, 11)), rng.integers(0, 4, (6, 9, 11))
    truth[rng.random(truth.shape) < 0.2] = VOID
    counts = confusion(truth, predicted, 7)  # classes 5 and 6 are nowhere: they have no IoU
    known = truth != VOID
    reference = jaccard_score(truth[known], predicted[known], average=None, labels=range(5))
    assert iou(counts)[:5] == pytest.approx(reference) and np.isnan(iou(counts)[5:]).all()
    mmseg = pytest.importorskip("mmseg.evaluation")
    areas = [
        mmseg.IoUMetric.intersect_and_union(torch.tensor(p), torch.tensor(t), 7, VOID)
        for p, t in zip(predicted, truth, strict=True)
    ]
    total = [sum(parts) for parts in zip(*areas, strict=True)]
    theirs = mmseg.IoUMetric.total_area_to_metrics(*total, ["mIoU"])
    ours = segmentation_metrics(counts)
    assert ours["mIoU"] == pytest.approx(100 * np.nanmean(theirs["IoU"]))
    assert ours["mAcc"] == pytest.approx(100 * np.nanmean(theirs["Acc"]))
    assert ours["aAcc"] == pytest.approx(100 * theirs["aAcc"])


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "convnext_atto"])
def test_every_family_and_the_same_again_from_the_cache(arch: str, pair: SegmentedPair, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(arch)
    task = InContext("squares", size=64, k=5)
    found = run(task, checkpoint, pair, tmp_path / "a")
    assert 0 <= found["mIoU"] <= 100
    assert run(task, checkpoint, pair, tmp_path / "b") == found
    assert Image.open(tmp_path / "a/predictions/0.png").size == (64, 64)
    assert outcomes.load(tmp_path / "a").metrics() == pytest.approx(found)  # from the pixels of each image alone
    planned = task.plan(checkpoint, pair, Folders(tmp_path / "a", tmp_path / "cache"))
    assert "in the cache" in planned[0] and planned[2].startswith("memory: ")


def test_equals_the_reference_formulation(pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path) -> None:
    """A matrix product, topk and softmax; labels of void pixels count for nothing."""
    metrics = run(TASK, trunk, pair, tmp_path / "run")
    assert metrics["mIoU"] > 30
    memory, queries = (extract_patches(trunk, part, 64, "layer2", tmp_path / "c") for part in (pair.train, pair.val))
    labels = []
    for index in range(len(pair.train)):
        truth = pair.train.truth(index)
        for row in range(8):
            for column in range(8):
                patch = truth[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                counted = np.bincount(patch[patch != VOID], minlength=4)
                labels.append(counted / counted.sum())
    unit = torch.nn.functional.normalize
    similarity = unit(torch.tensor(queries.features)) @ unit(torch.tensor(memory.features)).T
    best = similarity.double().topk(5)
    weights = (best.values / 0.02).softmax(dim=1)
    soft = (weights[:, :, None] * torch.tensor(np.array(labels))[best.indices]).sum(1)
    for index in range(len(pair.val)):
        own = soft[64 * index : 64 * index + 64].T.reshape(1, 4, 8, 8)
        expected = torch.nn.functional.interpolate(own, (64, 64), mode="bilinear").argmax(1)[0]
        written = np.asarray(Image.open(tmp_path / f"run/predictions/{index}.png"))
        assert (expected.numpy() == written).mean() > 0.999


def test_features_are_the_maps_of_the_contract(pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path) -> None:
    patches = extract_patches(trunk, pair.val, 64, "layer4", tmp_path)
    image = pair.val.image(1)[None] / 255
    with torch.inference_mode():
        expected = feature_map(trunk.backbone(), trunk.preprocessing(image), ("layer4",))
    assert patches.grid == (2, 2)
    torch.testing.assert_close(torch.tensor(patches.of_image(1)), expected[0].flatten(1).T, rtol=1e-4, atol=1e-5)


def test_trap_the_hummingbird_version_has_the_published_deviation_and_void_as_class_0(
    pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path
) -> None:
    assert HUMMINGBIRD_STD == (0.229, 0.224, 0.255)
    task = InContext("squares", size=64, feature="layer2", k=5, version="hummingbird", memory=256)
    assert task._preprocessed(trunk).id != trunk.id and TASK._preprocessed(trunk).id == trunk.id
    (tmp_path / "run").mkdir()
    features, counts = task._memory(task._preprocessed(trunk), pair.train, Folders(tmp_path / "run", tmp_path), 0)
    assert features.shape == (256, 48) and (counts.sum(axis=1) == 64).all()  # every pixel counts, void ones as class 0
    found = run(task, trunk, pair, tmp_path / "run")
    assert found == run(task, trunk, pair, tmp_path / "again")
    assert not (tmp_path / "run/memory.npy").exists()
    with pytest.raises(UserError, match="epochs=2"):
        InContext("squares", epochs=2)


def test_trap_crops_beyond_the_image_fall_back_to_its_middle(pair: SegmentedPair) -> None:
    crops = cropped(pair.train, 64, seed=0, epoch=0)
    views = [crops.both(index) for index in range(len(crops))]
    assert all(image.shape == (3, 64, 64) and truth.shape == (64, 64) for image, truth in views)
    assert AREAS == (0.5, 2.0)
    beyond = RandomResizedCrop.get_params(torch.zeros(3, 64, 64), [1.5, 2.0], [3 / 4, 4 / 3])
    assert tuple(beyond) == (0, 0, 64, 64)
    other = cropped(pair.train, 64, seed=0, epoch=1)
    assert other.fingerprint != crops.fingerprint
    assert (crops.image(0) == views[0][0]).all()


def test_trap_scored_at_the_resolution_of_the_image(pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path) -> None:
    """A map that is resized before scoring gives another number (valeoai/Franca issue 2)."""
    run(InContext("squares", size=32, feature="layer2", k=5), trunk, pair, tmp_path / "image")
    assert Image.open(tmp_path / "image/predictions/0.png").size == (64, 64)
    run(InContext("squares", size=32, feature="layer2", k=5, version="hummingbird"), trunk, pair, tmp_path / "input")
    assert Image.open(tmp_path / "input/predictions/0.png").size == (32, 32)


def test_rare_classes_are_remembered_first() -> None:
    counts = np.zeros((10, 3), np.int64)
    counts[:7, 0] = 4
    counts[7:9, 1] = 4  # the last patch has no class
    kept = rarest(counts, 2, np.random.default_rng(0))
    assert set(kept) <= set(range(9)) and len(kept) == 2
    often = np.bincount(np.concatenate([rarest(counts, 2, np.random.default_rng(i)) for i in range(200)]), minlength=10)
    assert often[7:9].min() > 2 * often[:7].max() and often[9] == 0
    assert rarest(counts, 20, np.random.default_rng(0)).tolist() == list(range(9))


def test_patches_and_pixels_by_hand() -> None:
    truth = np.array([[0, 0, 1, 255], [0, 1, 255, 255]], np.uint8)
    pixels = patch_pixels(truth, (1, 2))
    assert pixels.tolist() == [[0, 0, 0, 1], [1, 255, 255, 255]]
    assert class_counts(pixels, 2).tolist() == [[3, 1], [0, 1]]
    assert resize_map(truth, (4, 8))[::2, ::2].tolist() == truth.tolist()


def test_what_cannot_be_used_is_named_in_one_line(folder: Path, trunk: Checkpoint, tmp_path: Path) -> None:
    def broken(value: Any) -> SegmentedPair:
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        write(path, 2, 1)
        value(path)
        return load_segmented(str(path), tmp_path / "cache")

    def save(array: Any) -> Any:
        return lambda path: Image.fromarray(array).save(path / "train/masks/0.png")

    for change, match in (
        (save(np.full((64, 64), 9, np.uint8)), "masks/0.png has the value 9; expected 0 to 3"),
        (save(np.zeros((32, 64), np.uint8)), "is 64x32, but its image is 64x64"),
        (save(np.zeros((64, 64, 3), np.uint8)), "is a colour image"),
    ):
        with pytest.raises(UserError, match=match):
            run(TASK, trunk, broken(change), tmp_path / "run")
    for change, match in (
        (lambda path: (path / "train/masks/0.png").unlink(), "0 has no mask"),
        (lambda path: (path / "classes.txt").unlink(), "classes.txt not found"),
    ):
        with pytest.raises(UserError, match=match):
            broken(change)
    with pytest.raises(UserError, match="one class"):
        TASK.check(broken(lambda path: (path / "classes.txt").write_text("all\n")))

    def only_void(path: Path) -> None:
        for mask in (path / "train/masks").iterdir():
            Image.fromarray(np.full((64, 64), 255, np.uint8)).save(mask)

    with pytest.raises(UserError, match="check the masks"):
        run(TASK, trunk, broken(only_void), tmp_path / "run")
    pair = load_segmented(str(folder), tmp_path / "cache")
    with pytest.raises(UserError, match="size=100 is not a multiple of 32"):
        run(InContext("squares", size=100), trunk, pair, tmp_path / "run")
    with pytest.raises(UserError, match="k 0"):
        InContext(k=0)
