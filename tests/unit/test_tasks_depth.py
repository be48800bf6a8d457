"""Depth and surface normals: losses and metrics by hand, unknown pixels, published layouts, resumption."""

import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

import dense_folder
import numpy as np
import pytest
import torch
from miniatures import TINY
from PIL import Image

from cgh_bench import outcomes, tasks
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.descent import HeadTraining
from cgh_bench.core.errors import UserError
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.map_views import turned_crop
from cgh_bench.data.measured import GROUND, MeasuredPair, ground, load_measured, read_normals
from cgh_bench.data.preprocessing import Preprocessing
from cgh_bench.frozen.map_losses import SIG_WARMUP, angular_loss, depth_of_bins, sig_loss
from cgh_bench.frozen.patches import LiveMaps
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.depth import BINS, Depth, scored_part
from cgh_bench.tasks.measured import MeasuredTask
from cgh_bench.tasks.normals import Normals

SHORT = HeadTraining(0.1, iterations=20, batch_size=4, warmup=2)


@pytest.fixture(scope="module")
def trunk() -> Checkpoint:
    return random_checkpoint("test_resnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_folder.write_steps(tmp_path_factory.mktemp("depth") / "steps")


def run(task: MeasuredTask, trunk: Checkpoint, pair: MeasuredPair, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    task.check(pair)
    return task.run(trunk, pair, Folders(folder, folder.parent / "cache"), 0)


DEPTH = Depth(size=64, feature="layer1", training=SHORT)


def test_metrics_by_hand() -> None:
    truth = np.array([[1, 2, 4, 0, 20]], np.float32)
    predicted = np.array([[1.2, 2, 3, 5, 5]], np.float32)  # the last two do not count: unknown, out of range
    found = DEPTH.errors(predicted, truth)
    assert found["rmse"] == pytest.approx(math.sqrt((0.04 + 0 + 1) / 3))
    assert found["abs_rel"] == pytest.approx((0.2 + 0 + 0.25) / 3)
    assert found["delta1"] == pytest.approx(200 / 3)  # 4/3 is not below 1.25
    assert DEPTH.errors(np.full((1, 1), 99, np.float32), np.full((1, 1), 9, np.float32))["rmse"] == 1  # clipped to 10
    angle = math.radians(20)
    vectors = np.array([[[0, 0, -1], [0, math.sin(angle), -math.cos(angle)], [1, 0, 0], [1, 0, 0]]], np.float32)
    truth = np.array([[[0, 0, -1], [0, 0, -1], [0, 0, -1], [0, 0, 0]]], np.float32)
    found = Normals().errors(vectors, truth)
    assert found["rmse"] == pytest.approx(math.sqrt((0 + 400 + 8100) / 3), rel=1e-5)
    assert [found[f"within_{limit}"] for limit in (11, 22, 30)] == pytest.approx([100 / 3, 200 / 3, 200 / 3])
    eigen, garg = scored_part((480, 640), "eigen"), scored_part((352, 1216), "garg")
    assert eigen.sum() == (471 - 45) * (601 - 41) and garg[143, 43] and not garg[142, 43] and not garg[143, 42]


def test_losses_by_hand() -> None:
    depth, truth = torch.tensor([[[2.0, 4.0, 1.0]]]), torch.tensor([[[1.0, 4.0, 0.0]]])
    g = torch.tensor([math.log(2.001 / 1.001), 0.0])
    early, late = (0.15 * g.mean() ** 2).sqrt(), (g.var() + 0.15 * g.mean() ** 2).sqrt()
    torch.testing.assert_close(sig_loss(depth, truth, truth > 0, SIG_WARMUP - 1), early)
    torch.testing.assert_close(sig_loss(depth, truth, truth > 0, SIG_WARMUP), late)
    assert sig_loss(depth, truth, truth > 9, 0) == 0
    bins = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(depth_of_bins(torch.tensor([[[-5.0, 0.3]]]), bins), torch.tensor([[(0.1 + 1.2) / 0.5]]))
    outputs, up = torch.tensor([0.0, 0, 2, 1]).view(1, 4, 1, 1), torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1)
    angle, kappa = math.acos(1 - 1e-4), 2.01
    expected = math.log(1 + math.exp(-kappa * math.pi)) - math.log(kappa**2 + 1) + kappa * angle
    assert float(angular_loss(outputs, up, torch.ones(1, 1, 1, dtype=torch.bool))) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("kind", "limit"), [(DEPTH, 2.2), (Normals(size=64, feature="layer1", training=SHORT), 45)])
def test_learns_and_resumes(kind: Any, limit: float, folder: Path, trunk: Checkpoint, tmp_path: Path) -> None:
    pair = load_measured(str(folder), kind.QUANTITY, tmp_path / "cache")
    found = run(kind, trunk, pair, tmp_path / "whole")
    assert found["rmse"] < limit
    assert outcomes.load(tmp_path / "whole").metrics() == pytest.approx(found)
    written = np.asarray(Image.open(tmp_path / f"whole/{kind.QUANTITY}/000000.png"))
    assert written.shape[:2] == (48, 64)
    assert (tmp_path / f"whole/pictures/{kind.QUANTITY}.png").is_file()
    calls = iter(range(100))

    def stopping(self: Any, *given: Any) -> Any:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return type(kind).loss(self, *given)

    stopped = type("Stopped", (type(kind),), {"loss": stopping})(**vars(kind))
    with pytest.raises(KeyboardInterrupt):
        run(stopped, trunk, pair, tmp_path / "part")
    state = torch.load(tmp_path / "part/state.pt", weights_only=True)
    state["identity"] = torch.load(tmp_path / "whole/state.pt", weights_only=True)["identity"]  # of another class
    torch.save(state, tmp_path / "part/state.pt")
    assert 0 < state["learner"]["step"] < 20 and run(kind, trunk, pair, tmp_path / "part") == found


def listed(root: Path, folder: Path, name: str) -> None:
    """The steps in the layout of a published dataset."""
    made = root / {"nyuv2": "nyu", "kitti_depth": "kitti"}[name]
    made.mkdir(parents=True)
    (made / SUBSET).touch()
    images, depths, levels = ("", "", 1) if name == "nyuv2" else ("input/", "gt_depth/", 0.256)
    for split, file in (("train", "train"), ("val", "test")):
        lines = []
        for path in sorted((folder / split / "images").iterdir()):
            image, depth = f"{split}/room/rgb_{path.stem}.png", f"{split}/room/sync_depth_{path.stem}.png"
            for target in (made / images / image, made / depths / depth):
                target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).save(made / images / image)
            millimetres = np.asarray(Image.open(folder / split / "depth" / path.name))
            Image.fromarray((millimetres * levels).astype(np.uint16)).save(made / depths / depth)
            lines.append(f"/{image} /{depth} 518.8579" if name == "nyuv2" else f"{image} {depth} 721.5377")
        lines.append("somewhere.png None 721.5377" if name == "kitti_depth" else "")
        (made / f"{'nyu' if name == 'nyuv2' else 'kitti_eigen'}_{file}.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("name", ["nyu_depth", "kitti_depth"])
def test_published_recipes_and_layouts(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks.find(name)
    assert isinstance(task, Depth)
    expected = HeadTraining(3e-4, 38_400, 16, (0.9, 0.99), 1e-4, 12_800, 1e-6, "cosine", 1e-3, 35.0, 0)
    assert task.training == expected and task.CHANNELS == BINS == 256 and task.mirrored and task.test == "whole"
    listed(tmp_path / "data", folder, task.data)
    monkeypatch.setenv("CGH_DATA", str(tmp_path / "data"))
    training = dataclasses.replace(SHORT, iterations=2, warmup=0)
    small = dataclasses.replace(task, feature="layer4", crop=(32, 48), box=None, scored="all", training=training)
    pair = small.load_data(tmp_path / "cache")
    assert (len(pair.train), len(pair.val)) == (6, 2) and pair.subset
    own = load_measured(str(folder), "depth", tmp_path / "cache")
    np.testing.assert_allclose(pair.val.both(0)[1], own.val.both(0)[1], atol=0.005)
    vit = random_checkpoint("vit_tiny_patch16_224")
    assert pickle.dumps(small.examples(vit, pair.train, Folders(tmp_path, tmp_path)))  # for loaders that are spawned
    found = run(small, vit, pair, tmp_path / "run")
    assert 0 < found["rmse"] < task.most and 0 <= found["delta1"] <= 100


def test_trap_pixels_are_scaled_as_the_checkpoint_says(trunk: Checkpoint) -> None:
    """DINOv2's released depth heads expect 0 to 255, DINOv3's 0 to 1: both are the same network's input here."""
    image = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    one = trunk.preprocessing
    levels = Preprocessing("RGB", 255.0, *(tuple(255 * value for value in part) for part in (one.mean, one.std)))
    as_levels = dataclasses.replace(trunk, preprocessing=levels)
    found = [LiveMaps(each, "layer4", "fp32").features(image) for each in (trunk, as_levels)]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_scenes_are_planes_in_the_order_in_which_they_hide_each_other(tmp_path: Path) -> None:
    write_scenes(tmp_path / "animal_scenes", TINY)
    # The embedded set is made anew by its own settings: read the small one as it lies there.
    from cgh_bench.data import measured

    located = type("Located", (), {"root": tmp_path, "fingerprint": "f"})
    before, measured.locate = measured.locate, lambda *_: located  # type: ignore[assignment]
    try:
        depth, normals = (load_measured("animal_scenes", kind, tmp_path) for kind in ("depth", "normals"))  # type: ignore[arg-type]
        assert len(depth.train) == len(normals.train) == TINY.train_scenes
    finally:
        measured.locate = before
    plane = ground(96, 96)
    assert plane[0].min() > plane[-1].max() and plane.mean(axis=1)[47:49].mean() == pytest.approx(GROUND, rel=0.01)
    mask = np.asarray(Image.open(tmp_path / "animal_scenes/train/masks/000002.png"))
    for pair, of_ground in ((depth, plane), (normals, np.float32([0, -math.sqrt(0.5), -math.sqrt(0.5)]))):
        _, values = pair.train.both(1)
        assert (values[mask == 0] == np.broadcast_to(of_ground, values.shape)[mask == 0]).all()
    near = depth.train.both(1)[1][mask > 0]
    assert set(np.unique(near)) <= set(np.float32([2.1, 1.7])) and near.max() < plane.min()
    assert (normals.train.both(1)[1][mask > 0] == (0, 0, -1)).all()


def test_crops_turn_image_and_depth_together() -> None:
    depth = np.tile(np.arange(1, 61, dtype=np.float32), (40, 1))
    image = torch.from_numpy(np.repeat((4 * depth)[None], 3, axis=0).astype(np.uint8))
    for seed in range(8):
        torch.manual_seed(seed)
        part, values = turned_crop(image, depth, (24, 80))
        assert part.shape == (3, 24, 80) and values.shape == (24, 80)
        assert (values[:, 60:] == 0).all()  # beyond the image nothing is known
        inside = values > 0
        assert np.corrcoef(part[0].numpy()[inside], values[inside])[0, 1] > 0.98


def test_trap_zero_depth_is_unknown_and_other_bad_input_is_named(folder: Path, tmp_path: Path) -> None:
    pair = load_measured(str(folder), "depth", tmp_path / "cache")
    assert (pair.val.both(0)[1][:2] == 0).all()
    low = DEPTH.errors(np.ones((48, 64), np.float32), np.where(np.arange(48)[:, None] < 2, 0, 1) * np.ones((1, 64)))
    assert low["rmse"] == 0
    black = tmp_path / "black.png"
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(black)
    assert not read_normals(black).any()

    def broken(values: np.ndarray) -> MeasuredPair:
        made = tmp_path / str(len(list(tmp_path.iterdir())))
        for split in ("train", "val"):
            for name in ("images", "depth"):
                (made / split / name).mkdir(parents=True)
            Image.open(folder / split / "images/0.png").save(made / split / "images/0.png")
            Image.fromarray(values).save(made / split / "depth/0.png")
        return load_measured(str(made), "depth", tmp_path / "cache")

    for values, match in (
        (np.zeros((48, 64), np.uint16), "zero everywhere"),
        (np.ones((48, 60), np.uint16), "is 60x48, but the image is 64x48"),
        (np.ones((48, 64), np.uint8), "expected 16-bit grey"),
        (np.ones((48, 64, 3), np.uint8), "expected 16-bit grey"),
    ):
        with pytest.raises(UserError, match=match):
            broken(values).val.both(0)
    far = broken(np.full((48, 64), 60_000, np.uint16))
    with pytest.raises(UserError, match="0.png has no valid pixel"):
        DEPTH._judged(far.val, 0, lambda index, size: np.ones(size, np.float32), Folders(tmp_path, tmp_path))
    for wrong in ({"least": 0.0}, {"mirrored": True}, {"size": 0}):
        with pytest.raises(UserError):
            Depth(**wrong)
    with pytest.raises(UserError, match="needs your data"):
        load_measured("", "depth", tmp_path)
    with pytest.raises(UserError, match="nyuv2"):
        load_measured("nyuv3", "depth", tmp_path)
