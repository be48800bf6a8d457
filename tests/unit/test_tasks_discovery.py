"""Object discovery: LOST's own boxes, keys of the last attention, VOC's layout, and images without an object."""

import json
from dataclasses import replace
from pathlib import Path

import miniatures
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from cgh_bench import outcomes
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data.demo.scenes import write_scenes
from cgh_bench.frozen.discovery import object_box, overlaps, positions
from cgh_bench.tasks import find
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.discovery import BoxedImages, Discovery

# valeoai/LOST@fcedbec object_discovery.py `lost` on `drawn(seed)`, in November 2026, with its sort made stable.
OFFICIAL = {0: (80, 48, 135, 155), 1: (0, 16, 64, 107), 2: (0, 0, 64, 48), 24: (48, 64, 87, 107), 25: (0, 0, 64, 96)}


def drawn(seed: int) -> tuple[torch.Tensor, tuple[int, int], int]:
    """Smooth features of a grid, and how many may join the seed."""
    draw = np.random.default_rng(seed)
    grid = (int(draw.integers(4, 12)), int(draw.integers(4, 12)))
    features = np.stack([ndimage.gaussian_filter(draw.standard_normal(grid), 1.0) for _ in range(6)], axis=-1)
    features[2:4, 1:3] += draw.standard_normal(6) * 0.7
    return torch.tensor(features.reshape(-1, 6), dtype=torch.float32), grid, int(draw.integers(3, 30))


@pytest.mark.parametrize("seed", list(OFFICIAL))
def test_boxes_are_those_of_the_official_code(seed: int) -> None:
    features, grid, most = drawn(seed)
    box = object_box(features, grid, (16.0, 16.0), most)
    height, width = grid[0] * 16 - 5, grid[1] * 16 - 9
    assert tuple(np.minimum(box, [width, height] * 2)) == OFFICIAL[seed]


def test_a_position_that_is_like_none_is_boxed_alone() -> None:
    assert object_box(torch.zeros(6, 3), (2, 3), (8.0, 4.0), 100).tolist() == [0, 0, 4, 8]
    box = np.array([0.0, 0.0, 4.0, 4.0])
    assert overlaps(box, np.array([[0.0, 0, 4, 4], [0, 0, 4, 8], [4, 4, 6, 6]])).tolist() == [1, 0.5, 0]


def test_the_features_are_keys_or_the_normalised_map() -> None:
    inputs = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vit = random_checkpoint("vit_tiny_patch16_224").backbone()
        found, grid = positions(vit, inputs)
        tokens = vit.network.forward_intermediates(inputs, indices=[10], norm=False, output_fmt="NLC")[1][0]
        assert (found.shape, grid) == ((6, 192), (2, 3)) and tokens.shape[1] == 6
        with_cls = vit.network.forward_intermediates(
            inputs, indices=[10], norm=False, output_fmt="NLC", return_prefix_tokens=True
        )[1][0]
        last, sequence = vit.network.blocks[-1], torch.cat([with_cls[1], with_cls[0]], dim=1)
        weight, bias = last.attn.qkv.weight[192:384], last.attn.qkv.bias[192:384]
        keys = last.norm1(sequence) @ weight.T + bias
        assert torch.allclose(found, keys[0, 1:], atol=1e-5)
        maps, grid = positions(random_checkpoint("resnet18").backbone(), torch.rand(1, 3, 64, 96))
        assert (maps.shape, grid) == ((6, 512), (2, 3))
        assert abs(float(maps.mean())) < 1e-5 and float(maps.std(correction=0)) == pytest.approx(1, abs=1e-3)


def test_voc_in_its_layout_odd_sizes_and_nothing_to_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = write_scenes(tmp_path / "scenes", replace(miniatures.TINY, train_scenes=2, val_scenes=2, side=90))
    miniatures.voc(scenes, tmp_path / "data")
    monkeypatch.setenv("CGH_DATA", str(tmp_path / "data"))
    task = find("voc07_discovery")
    data = task.load_data(tmp_path)
    assert len(data.images) == 2 and data.subset
    checkpoint, folders = random_checkpoint("vit_tiny_patch16_224"), Folders(tmp_path / "run", tmp_path / "cache")
    assert task.plan(checkpoint, data, folders)[0].startswith("boxes of 2 images")
    found = task.run(checkpoint, data, folders, 0)
    assert outcomes.load(tmp_path / "run").metrics() == pytest.approx(found)
    assert set(found) == {"CorLoc", "IoU", "recall"} and 0 <= found["IoU"] <= 100
    assert found == task.run(checkpoint, data, folders, 0)
    assert (tmp_path / "run/boxes.json").stat().st_size > 100 and (tmp_path / "run/pictures/boxes.png").exists()
    truth = Image.open(data.images[0][0])
    assert truth.size == (90, 90)  # no multiple of a patch
    (left, top, right, bottom), *_ = data.images[0][1].tolist()
    assert 0 <= left < right <= 90 and 0 <= top < bottom <= 90
    everything = BoxedImages("whole", tuple((path, np.array([[0.0, 0, 90, 90]])) for path, _ in data.images), "")
    assert Discovery("whole", short=64).run(checkpoint, everything, folders, 0)["IoU"] > 0
    with pytest.raises(UserError, match="part 9"):
        replace(task, part=9).load_data(tmp_path)
    with pytest.raises(UserError, match="most 0"):
        Discovery("voc0712", most=0)


def test_coco20k_in_its_layout_in_whole_pixels_without_crowds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = write_scenes(tmp_path / "scenes", replace(miniatures.TINY, train_scenes=1, val_scenes=2, side=90))
    miniatures.coco(scenes, tmp_path)
    (tmp_path / "coco/val2017").rename(tmp_path / "coco/train2014")
    document = json.loads((tmp_path / "coco/annotations/instances_val2017.json").read_text())
    crowd, *_ = (line for line in document["annotations"] if line["image_id"] == document["images"][0]["id"])
    document["annotations"].append({**crowd, "id": 999, "iscrowd": 1, "bbox": [0, 0, 90, 90]})
    for line in document["annotations"]:
        line["bbox"][0] += 0.3
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    task, file = find("coco20k_discovery"), tmp_path / "coco/annotations/instances_train2014_sel20k.json"
    with pytest.raises(UserError, match="sel20k.json is missing"):
        task.load_data(tmp_path / "cache")
    file.write_text(json.dumps(document))
    data = task.load_data(tmp_path / "cache")
    assert data.subset == "2 of 19,817 images"
    for _, boxes in data.images:
        assert len(boxes) and (boxes == boxes.round()).all() and [0, 0, 90, 90] not in boxes.tolist()
    folders = Folders(tmp_path / "run", tmp_path / "cache")
    found = task.run(random_checkpoint("vit_tiny_patch16_224"), data, folders, 0)
    assert outcomes.load(tmp_path / "run").metrics() == pytest.approx(found)
