import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core import dist
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.data.folder import load_folder
from cgh_bench.data.image_set import GreyImages
from cgh_bench.data.transform import AS_IS, EvalTransform
from cgh_bench.frozen import extraction as module
from cgh_bench.frozen.cost import cost
from cgh_bench.frozen.extraction import Work
from cgh_bench.frozen.features import extract, extract_all, plan


@pytest.fixture(scope="module")
def backbone() -> Checkpoint:
    return random_checkpoint("resnet18")


def pictures(n: int = 9, content: str = "f") -> GreyImages:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32), dtype=np.uint8)
    return GreyImages("toy/train", ("a", "b"), np.arange(n) % 2, content, pixels)


def test_features_are_the_backbones_own_in_order(backbone: Checkpoint, tmp_path: Path) -> None:
    images = pictures()
    bank = extract(backbone, images, AS_IS, "layer4", tmp_path)
    batch = torch.stack([images.image(i) for i in range(9)]) / 255
    with torch.inference_mode():
        expected = backbone.backbone()(backbone.preprocessing(batch))
    np.testing.assert_allclose(bank.features, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert isinstance(bank.features, np.memmap)
    assert not bank.features.flags.writeable


def test_a_hypercolumn_is_the_stages_side_by_side(backbone: Checkpoint, tmp_path: Path) -> None:
    images = pictures()
    both = extract(backbone, images, AS_IS, "layer4+layer3", tmp_path).features
    assert both.shape == (9, 256 + 512)
    # 2x2 to 1x1 is the mean of all positions: the pooled stage itself.
    third = extract(backbone, images, AS_IS, "layer3", tmp_path).features
    np.testing.assert_allclose(both[:, :256], third, rtol=1e-4, atol=1e-6)
    with pytest.raises(UserError, match="did you mean layer4"):
        extract(backbone, images, AS_IS, "layer5", tmp_path)


def test_several_features_are_one_pass(backbone: Checkpoint, tmp_path: Path) -> None:
    names = ("layer4", "layer3+layer4", "layer2")
    alone = [extract(backbone, pictures(), AS_IS, name, tmp_path / "alone") for name in names]
    read: list[int] = []

    class Counted(GreyImages):
        def image(self, index: int) -> torch.Tensor:
            read.append(index)
            return super().image(index)

    images = Counted(**vars(pictures()))
    extract(backbone, images, AS_IS, "layer4", tmp_path / "together")
    together = extract_all(backbone, images, AS_IS, names, tmp_path / "together")
    assert read == 2 * list(range(9))  # layer4 was there already
    for one, other in zip(alone, together, strict=True):
        assert one.fingerprint == other.fingerprint
        np.testing.assert_array_equal(one.features, other.features)
    again = extract_all(backbone, images, AS_IS, ("layer2", "layer2", "layer4+layer3"), tmp_path / "together")
    assert [bank.fingerprint for bank in again] == [alone[2].fingerprint] * 2 + [alone[1].fingerprint]
    assert len(read) == 18


def test_one_pass_of_any_trunk_gives_what_each_target_is_alone() -> None:
    for arch, names in (("resnet18", ("layer4", "layer1+layer4")), ("vit_tiny_patch16_32", ("block3+cls", "layer4"))):
        network = random_checkpoint(arch).backbone()
        targets = [network.architecture.targets(name) for name in names]
        images = torch.rand(2, 3, 32, 32)
        with torch.inference_mode():
            for target, found in zip(targets, network.pooled_all(images, targets), strict=True):
                assert torch.equal(found, network.pooled(images, target))


def test_the_cache_knows_weights_data_and_transform(backbone: Checkpoint, tmp_path: Path) -> None:
    first = extract(backbone, pictures(), AS_IS, "layer4", tmp_path)
    others = [
        extract(random_checkpoint("resnet18", seed=1), pictures(), AS_IS, "layer4", tmp_path),
        extract(backbone, pictures(content="g"), AS_IS, "layer4", tmp_path),
        extract(backbone, pictures(), EvalTransform(resize=64, crop=None), "layer4", tmp_path),
        extract(backbone, pictures(), AS_IS, "layer3", tmp_path),
    ]
    assert len({first.fingerprint, *(bank.fingerprint for bank in others)}) == 5
    assert extract(backbone, pictures(), AS_IS, "layer4", tmp_path).fingerprint == first.fingerprint


def test_an_interrupted_extraction_goes_on(
    backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 2)  # far from the next regular save
    whole = extract(backbone, pictures(), AS_IS, "layer4", tmp_path / "whole").features

    seen: list[int] = []

    class Interrupted(GreyImages):
        def image(self, index: int) -> torch.Tensor:
            seen.append(index)
            if len(seen) == 6:
                raise KeyboardInterrupt
            return super().image(index)

    with pytest.raises(KeyboardInterrupt):
        extract(backbone, Interrupted(**vars(pictures())), AS_IS, "layer4", tmp_path / "parts")
    resumed = extract(backbone, Interrupted(**vars(pictures())), AS_IS, "layer4", tmp_path / "parts").features
    assert seen == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7, 8]  # the batch that was computed last was not fetched yet
    np.testing.assert_array_equal(resumed, whole)


def test_a_backbone_that_moves_is_caught(backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_training_mode(self: Checkpoint) -> torch.nn.Module:
        return original(self).train()

    original = Checkpoint.backbone
    monkeypatch.setattr(Checkpoint, "backbone", in_training_mode)
    with pytest.raises(CheckFailed, match=r"bn1.running_mean changed"):
        extract(backbone, pictures(), AS_IS, "layer4", tmp_path)
    assert [path.name for path in tmp_path.glob("*/*")] == ["features.npy"]


def test_features_that_are_not_finite_name_their_images(backbone: Checkpoint, tmp_path: Path) -> None:
    weights = {**backbone.weights, "conv1.weight": torch.full_like(backbone.weights["conv1.weight"], torch.nan)}
    broken = Checkpoint("broken", backbone.architecture, weights, backbone.preprocessing, backbone.origin)
    with pytest.raises(UserError, match=r"not finite for 9 images \(number 0, number 1, .*inspect"):
        extract(broken, pictures(), AS_IS, "layer4", tmp_path)


def test_a_backbone_that_has_collapsed_is_named(
    backbone: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(backbone, pictures(), AS_IS, "layer4", tmp_path)
    assert "warning" not in capsys.readouterr().err
    last = {name: tensor * ("layer4.1" not in name) for name, tensor in backbone.weights.items()}
    last["layer4.1.bn2.bias"] = torch.full((512,), -1e9)
    extract(replace(backbone, weights=last, name="collapsed.pth"), pictures(), AS_IS, "layer4", tmp_path)
    assert re.search("^warning: .*collapsed.pth", capsys.readouterr().err, re.MULTILINE)


def test_done_is_written_last(backbone: Checkpoint, tmp_path: Path) -> None:
    bank = extract(backbone, pictures(), AS_IS, "layer4", tmp_path)
    done = json.loads((tmp_path / bank.fingerprint / "done.json").read_text())
    assert done["images"] == "toy/train"
    assert done["checkpoint"] == "random:resnet18"


def folder_of_pictures(root: Path, broken: int) -> Path:
    for split in ("train", "val"):
        for index in range(24):
            path = root / split / "cat" / f"{index:02d}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (9 * index, 0, 0)).save(path)
            if index >= 24 - broken:
                path.write_bytes(b"no picture")
    return root


def test_all_images_that_cannot_be_read_are_named_in_one_line(
    backbone: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 4)
    images = load_folder(folder_of_pictures(tmp_path / "zoo", broken=2), "train")
    with pytest.raises(UserError, match=r"^2 images of zoo/train cannot be used: .*22\.bmp.* \| .*23\.bmp.*$"):
        extract(backbone, images, AS_IS, "layer4", tmp_path)
    Image.new("RGB", (16, 32)).save(images.folder / "cat/22.bmp")
    Image.new("RGB", (32, 32)).save(images.folder / "cat/23.bmp")
    with pytest.raises(UserError, match=r"\(16x32, 32x32\).*transform.crop=16"):
        extract(backbone, load_folder(tmp_path / "zoo", "train"), AS_IS, "layer4", tmp_path)
    many = load_folder(folder_of_pictures(tmp_path / "bad", broken=24), "train")
    with pytest.raises(UserError, match=r"^20 or more images"):
        extract(backbone, many, AS_IS, "layer4", tmp_path)


def test_a_file_that_was_written_again_is_read_again(backbone: Checkpoint, tmp_path: Path) -> None:
    folder = folder_of_pictures(tmp_path / "zoo", broken=0)
    before = extract(backbone, load_folder(folder, "train"), AS_IS, "layer1", tmp_path)
    size = (folder / "train/cat/00.bmp").stat().st_size
    Image.new("RGB", (32, 32), (200, 0, 0)).save(folder / "train/cat/00.bmp")
    assert (folder / "train/cat/00.bmp").stat().st_size == size
    after = extract(backbone, load_folder(folder, "train"), AS_IS, "layer1", tmp_path)
    assert not np.array_equal(before.features[0], after.features[0])
    np.testing.assert_array_equal(before.features[1:], after.features[1:])


def test_a_bank_cut_short_is_made_again(backbone: Checkpoint, tmp_path: Path) -> None:
    whole = extract(backbone, pictures(), AS_IS, "layer4", tmp_path)
    path = tmp_path / whole.fingerprint / "features.npy"
    expected = np.array(whole.features)
    path.write_bytes(path.read_bytes()[:-4])
    np.testing.assert_array_equal(extract(backbone, pictures(), AS_IS, "layer4", tmp_path).features, expected)


def test_the_plan_says_what_is_to_do(backbone: Checkpoint, tmp_path: Path) -> None:
    (line,) = plan(backbone, pictures(), AS_IS, ("layer4", "layer3"), tmp_path)
    assert line.startswith("features layer4, layer3 of toy/train: 9 images, 0.00 GB on disk, up to 0.0 GB of memory ")
    assert ", about 0 s at " in line
    assert not list(tmp_path.iterdir())
    extract(backbone, pictures(), AS_IS, "layer4", tmp_path)
    cached, rest = plan(backbone, pictures(), AS_IS, ("layer3", "layer4"), tmp_path)
    assert cached == "features layer4 of toy/train: 9 images, in the cache"
    assert rest.startswith("features layer3 of toy/train: 9 images, ")


def test_the_plan_leaves_it_to_the_run_to_name_all_images_that_cannot_be_read(
    backbone: Checkpoint, tmp_path: Path
) -> None:
    folder = folder_of_pictures(tmp_path / "zoo", broken=3)
    (line,) = plan(backbone, load_folder(folder, "train"), AS_IS, ("layer4",), tmp_path)
    assert line.startswith("features layer4 of zoo/train: 24 images, ")
    folder = folder_of_pictures(tmp_path / "bad", broken=24)
    with pytest.raises(UserError, match=r"^24 or more images of bad/train cannot be used"):
        plan(backbone, load_folder(folder, "train"), AS_IS, ("layer4",), tmp_path)


@pytest.mark.parametrize(("images", "processes"), [(9, 2), (1, 3), (10, 4), (7, 7)])
def test_shares_are_all_rows_once_and_in_order(images: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "world_size", lambda: processes)
    rows: list[int] = []
    for process in range(processes):
        monkeypatch.setattr(dist, "rank", lambda process=process: process)
        rows += range(images)[dist.share(images)]
    assert rows == list(range(images))


@pytest.mark.parametrize("sides", [(32, 0), (0, None), (-4, None), (None, -1)])
def test_a_side_of_no_pixels_is_refused(sides: tuple[int | None, int | None]) -> None:
    with pytest.raises(UserError, match="must be at least 1 pixel, or none"):
        EvalTransform(*sides)


def test_flops_are_those_of_the_layers_and_the_speed_is_measured() -> None:
    per_block = 197 * 12 * 192**2 + 2 * 197**2 * 192  # queries, keys, values, output and the MLP; attention
    by_hand = {
        "resnet18": (64, 1_813_561_344 * 4 // 49),
        "vit_tiny_patch16_224": (224, 196 * 768 * 192 + 12 * per_block),
    }
    for name, (side, products) in by_hand.items():
        network = random_checkpoint(name)
        parts = (network.architecture.targets("layer4"),)
        found = cost(Work(network, pictures(), EvalTransform(side, side), parts))
        assert (found["flops"], found["image"]) == (2 * products, [side, side])
        assert found["images_per_second"] > 0 and found["batch"] >= 8
