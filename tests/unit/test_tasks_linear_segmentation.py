"""Linear segmentation: cached and computed features, windows, the recipes' values and traps, resumption."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_folder import write
from miniatures import TINY, ade20k, cityscapes, voc
from PIL import Image

from cgh_bench import tasks
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.descent import HeadTraining
from cgh_bench.core.errors import UserError
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.data.map_views import scaled_crop
from cgh_bench.data.segmented import VOID, SegmentedPair, load_segmented
from cgh_bench.data.windows import Windows, resized, starts
from cgh_bench.frozen.dense_head import Computed, DenseHead, Objective, train_head
from cgh_bench.frozen.drawing import principal_colours
from cgh_bench.frozen.map_losses import patch_cross_entropy, pixel_cross_entropy, resize
from cgh_bench.frozen.patches import LiveMaps, feature_map
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.linear_segmentation import LinearSegmentation

SHORT = HeadTraining(0.02, iterations=40, batch_size=4, warmup=4, dropout=0.1)
TASK = LinearSegmentation("squares", size=64, short_side=64, stride=64, feature="layer2", training=SHORT)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SegmentedPair:
    folder = write(tmp_path_factory.mktemp("dense") / "squares")
    return load_segmented(str(folder), folder.parent / "cache")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "scenes", TINY)


@pytest.fixture(scope="module")
def trunk() -> Checkpoint:
    return random_checkpoint("test_resnet")


def run(task: LinearSegmentation, trunk: Checkpoint, pair: SegmentedPair, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True, exist_ok=True)
    task.check(pair)
    return task.run(trunk, pair, Folders(folder, folder.parent / "cache"), 0)


def predictions(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "predictions").iterdir())])


def test_learns_and_says_what_it_takes(pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path) -> None:
    metrics = run(TASK, trunk, pair, tmp_path / "run")
    assert metrics["mIoU"] > 45
    assert not list((tmp_path / "run").glob("truth-*"))
    assert (tmp_path / "run/pictures/patches.png").is_file()
    plan = TASK.plan(trunk, pair, Folders(tmp_path / "run", tmp_path / "cache"))
    assert "in the cache" in plan[0] and "40 steps" in plan[2]
    crops = dataclasses.replace(TASK, view="crops", loss="pixels")
    folders = Folders(tmp_path / "run", tmp_path / "cache")
    assert "random crops" in crops.plan(trunk, pair, folders)[-1]
    assert pickle.dumps(crops.examples(trunk, pair.train, folders))  # for loaders that are spawned, not forked


def test_cached_equals_computed(pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path) -> None:
    """The same examples, with the backbone run for every batch."""
    cached = TASK.examples(trunk, pair.train, Folders(tmp_path, tmp_path / "cache"))
    live = Computed(LiveMaps(trunk, "layer2", "fp32"), TASK.windows(pair.train), lambda *both: both, (64, 64))
    objective = Objective(4, lambda outputs, truth, grid, _: patch_cross_entropy(outputs, truth, grid))
    training = dataclasses.replace(SHORT, iterations=6)
    heads = [
        train_head(examples, objective, training, 0, tmp_path / f"{name}.pt", "same")[0]
        for name, examples in (("cached", cached), ("live", live))
    ]
    torch.testing.assert_close(*(head.linear.weight for head in heads), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("view", ["windows", "crops"])
def test_interrupted_is_uninterrupted(view: Any, pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path) -> None:
    loss: Any = "patches" if view == "windows" else "pixels"
    task = dataclasses.replace(TASK, view=view, loss=loss, training=dataclasses.replace(SHORT, iterations=8))
    expected = run(task, trunk, pair, tmp_path / "whole")
    calls = 0

    def stopping(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return patch_cross_entropy(*given[:3]) if loss == "patches" else pixel_cross_entropy(*given[:3])

    class Stopped(LinearSegmentation):
        def _loss(self) -> Any:
            return stopping

    stopped = Stopped(**{field.name: getattr(task, field.name) for field in dataclasses.fields(task)})
    with pytest.raises(KeyboardInterrupt):
        run(stopped, trunk, pair, tmp_path / "part")
    state = torch.load(tmp_path / "part/state.pt", weights_only=True)
    assert 0 < state["learner"]["step"] < 8
    state["identity"] = torch.load(tmp_path / "whole/state.pt", weights_only=True)["identity"]  # of another class
    torch.save(state, tmp_path / "part/state.pt")
    assert run(task, trunk, pair, tmp_path / "part") == expected
    assert (predictions(tmp_path / "part") == predictions(tmp_path / "whole")).all()


def test_windows_cover_the_image_and_their_mean_is_scored_at_its_resolution(trunk: Checkpoint, tmp_path: Path) -> None:
    folder = write(tmp_path / "wide", 2, 1)
    for split in ("train", "val"):
        for name in ("images", "masks"):
            for path in (folder / split / name).iterdir():
                Image.open(path).resize((150, 90), Image.Resampling.NEAREST).save(path)
    pair = load_segmented(str(folder), tmp_path / "cache")
    assert starts(512, 512, 341) == [0] and starts(853, 512, 341) == [0, 341] and starts(854, 512, 341) == [0, 341, 342]
    task = dataclasses.replace(TASK, stride=40, training=dataclasses.replace(SHORT, iterations=2, warmup=0))
    windows = task.windows(pair.val)
    assert [place[1:] for place in windows.places] == [(0, 0), (0, 40), (0, 42)]  # 64 x 106
    assert windows.fingerprint != Windows(pair.val, 64, 64, 42).fingerprint
    run(task, trunk, pair, tmp_path / "run")
    written = np.asarray(Image.open(tmp_path / "run/predictions/0.png"))
    assert written.shape == (90, 150)
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)["learner"]
    assert state["step"] == 2  # the last head is the one that is reported
    head = DenseHead(48, 4, 0, 0)
    head.load_state_dict(state["head"])
    image = resized(*pair.val.both(0), 64)[0][None] / 255
    total, seen = torch.zeros(4, 64, 106), torch.zeros(64, 106)
    with torch.inference_mode():
        for left in (0, 40, 42):
            part = trunk.preprocessing(image[..., left : left + 64])
            features = feature_map(trunk.backbone(), part, ("layer2",)).flatten(2).transpose(1, 2)
            scores = resize(head.eval().maps(features, (8, 8)), (64, 64), "bilinear")
            total[..., left : left + 64] += scores[0].softmax(0)
            seen[..., left : left + 64] += 1
    expected = resize((total / seen)[None], (90, 150), "bilinear")[0].argmax(0)
    assert (expected.numpy() == written).mean() > 0.999


def test_whole_images_are_padded_to_a_multiple_of_the_patch(pair: SegmentedPair, tmp_path: Path) -> None:
    trunk = random_checkpoint("vit_tiny_patch16_224")
    training = dataclasses.replace(SHORT, iterations=2, warmup=0)
    task = LinearSegmentation(
        "squares", 64, short_side=70, view="crops", loss="pixels", test="whole", training=training
    )
    assert 0 <= run(task, trunk, pair, tmp_path / "run")["mIoU"] <= 100
    live = LiveMaps(trunk, "layer4", "fp32")
    features, grid, (rows, columns) = live.padded(torch.zeros(3, 70, 41, dtype=torch.uint8))
    assert grid == (5, 3) and features.shape[1] == 15
    assert (rows, columns) == (slice(5, 75), slice(3, 44))


@pytest.mark.parametrize(("name", "made"), [("voc", voc), ("ade20k", ade20k), ("cityscapes", cityscapes)])
def test_published_layouts(
    name: str, made: Any, scenes: Path, trunk: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Miniatures in the layout of each; of ADE20K, 0 is no class."""
    made(scenes, tmp_path / "data")
    monkeypatch.setenv("CGH_DATA", str(tmp_path / "data"))
    task = tasks.find(f"{name}_dense_linear")
    assert isinstance(task, LinearSegmentation)
    training = dataclasses.replace(SHORT, iterations=2, warmup=0)
    task = dataclasses.replace(task, size=96, short_side=96, stride=64, feature="layer3", training=training)
    pair = task.load_data(tmp_path / "cache")
    assert (len(pair.train), len(pair.val)) == (8, 4)
    assert 0 <= run(task, trunk, pair, tmp_path / "run")["mIoU"] <= 100
    assert predictions(tmp_path / "run").min() >= pair.val.first


def test_colours_of_patches_mean_the_same_in_every_image() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 4, 5)).astype(np.float32)
    features[1, :2] = features[0, 2:]
    first, second = (np.asarray(image) for image in principal_colours(features, (2, 2)))
    assert (second[0] == first[1]).all() and first.shape == (2, 2, 3) and len(np.unique(first)) > 4


def test_losses_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 6, 3, generator=generator)
    truth = torch.randint(0, 3, (2, 8, 12), generator=generator, dtype=torch.uint8)
    truth[0, :3] = VOID
    maps = outputs.transpose(1, 2).unflatten(2, (2, 3))
    for loss, mode in ((patch_cross_entropy, "nearest"), (pixel_cross_entropy, "bilinear")):
        expected = torch.nn.functional.cross_entropy(resize(maps, (8, 12), mode), truth.long(), ignore_index=VOID)
        torch.testing.assert_close(loss(outputs, truth, (2, 3)), expected)
        assert loss(outputs, torch.full_like(truth, VOID), (2, 3)) == 0  # nothing is known: nothing is learned


def test_published_recipes() -> None:
    dinov3, bnhead = tasks.find("ade20k_dense_linear_dinov3"), tasks.find("ade20k_dense_linear_bnhead")
    assert isinstance(dinov3, LinearSegmentation) and isinstance(bnhead, LinearSegmentation)
    assert (dinov3.size, dinov3.short_side, dinov3.stride, dinov3.test) == (512, 512, 341, "windows")
    assert dinov3.training == HeadTraining(1e-3, 40_000, 16, (0.9, 0.999), 1e-3, 1_500, 1e-6, "cosine", 0, None, 0.1)
    assert bnhead.training == HeadTraining(1e-3, 80_000, 16, (0.9, 0.999), 0, 1_500, 1e-6, "linear", 0, None, 0)
    shares = [dinov3.training.at(step / 2_000, 20) for step in (0, 750, 1_500, 20_750, 39_999)]
    assert shares == pytest.approx([1e-6, 0.5, 1, 0.5, 0], abs=1e-5)
    assert bnhead.training.at(20 * 40_750 / 80_000, 20) == pytest.approx(0.5)


def test_trap_blocks_are_named_by_number(pair: SegmentedPair) -> None:
    """`FOUR_EVEN_INTERVALS` of 24 blocks is [4, 11, 17, 23] in DINOv3's code: here each block is named."""
    trunk = random_checkpoint("vit_tiny_patch16_224")
    live = LiveMaps(trunk, "block4+block11", "fp32")
    image = pair.val.image(0)[None]
    with torch.inference_mode():
        maps = trunk.backbone().pyramid(trunk.preprocessing(image / 255))
        expected = torch.cat([maps["block4"], maps["block11"]], dim=1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(live.features(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("iterations", [7, 10])
def test_trap_any_number_of_iterations_is_judged_once(iterations: int, tmp_path: Path) -> None:
    """DINOv3's loop validates in every step if its interval does not divide them."""

    class One:
        grid, width = (1, 1), 2

        def __len__(self) -> int:
            return 3

        def example(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((1, 2), float(row)), torch.tensor([[row]])

        def features(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.extend(inputs[:, 0, 0].tolist())
            return inputs

        def processes(self, batch_size: int, batches: int) -> int:
            return 0

    seen: list[float] = []
    objective = Objective(3, lambda out, truth, *_: torch.nn.functional.cross_entropy(out[:, 0], truth[:, 0, 0]))
    training = HeadTraining(0.1, iterations, batch_size=3)
    head, history = train_head(One(), objective, training, 0, tmp_path / "state.pt", "")  # type: ignore[arg-type]
    assert history[-1]["step"] == iterations and not head.training
    assert sorted(seen) == sorted([0.0, 1.0, 2.0] * iterations)  # each as often as the others


def test_crops_and_their_maps_stay_together() -> None:
    truth = np.arange(40 * 60).reshape(40, 60) // 600 % 4
    truth = truth.astype(np.uint8)
    image = torch.from_numpy(np.repeat(50 * truth[None] + 20, 3, axis=0).astype(np.uint8))
    sizes = set()
    for seed in range(20):
        torch.manual_seed(seed)
        crop, part = scaled_crop(image, truth, 40, 48)
        assert crop.shape == (3, 48, 48) and part.shape == (48, 48)
        sizes.add(int((part == VOID).sum()))
        assert (crop[:, torch.from_numpy(part == VOID)] == 0).all()
        levels = [float(crop[:, torch.from_numpy(part == label)].float().mean()) for label in np.unique(part[part < 9])]
        assert levels == sorted(levels)  # brighter classes stay brighter
    assert len(sizes) > 3 and 0 in sizes
    only = np.full((40, 60), 2, np.uint8)  # one class alone: drawn ten times, then taken
    assert scaled_crop(image, only, 40, 32)[1].shape == (32, 32)


def test_what_cannot_be_used_is_named(pair: SegmentedPair, trunk: Checkpoint, tmp_path: Path) -> None:
    for changes, match in (
        ({"size": 60, "short_side": 60, "stride": 60}, "size=60 is not a multiple of 8"),
        ({"view": "crops", "size": 60, "stride": 60}, "size=60x60 is not a multiple of 8"),
    ):
        with pytest.raises(UserError, match=match):
            run(dataclasses.replace(TASK, **changes), trunk, pair, tmp_path / "run")
    with pytest.raises(UserError, match="stride 65 must be from 1 to size 64"):
        dataclasses.replace(TASK, stride=65).check(pair)
    for wrong in ({"iterations": 0}, {"warmup": 40}, {"dropout": 1.0}):
        with pytest.raises(UserError):
            dataclasses.replace(SHORT, **wrong)
    broken = write(tmp_path / "broken", 2, 1)
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(broken / "train/masks/0.png")
    other = load_segmented(str(broken), tmp_path / "cache")
    for view in ("windows", "crops"):
        with pytest.raises(UserError, match="masks/0.png has the value 9; expected 0 to 3"):
            run(dataclasses.replace(TASK, view=view, loss="pixels"), trunk, other, tmp_path / view)
