"""A ResNet as each framework has it and as it is carried there: the same outputs, and the same curve of a training."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cgh_bench.checkpoint import Checkpoint, random_checkpoint, save
from cgh_bench.converters.base import find as find_converter
from cgh_bench.core.errors import UserError
from cgh_bench.foreign import frameworks
from cgh_bench.transfer_configs.contract import arrival

STEPS, SIDE = 3, 64
RESNET = {"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN"}, "norm_eval": False}
"""mmsegmentation's own, in the place of the carried one: animals_seg is another network than animals_seg_any."""


class Side(NamedTuple):
    """A network with the checkpoint's weights in it."""

    model: nn.Module
    backbone: str
    """The module whose tensors are the checkpoint's."""
    losses: Callable[[], Mapping[str, Tensor]]
    maps: Callable[[], Any]


def objects() -> tuple[Tensor, Tensor]:
    """Two images of noise (2, 3, SIDE, SIDE), and a mask (SIDE, SIDE) of the object in each."""
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    mask[8:40, 8:40] = 1
    return images, mask


def of_openmmlab(framework: str, file: str, weights: Path | None, backbone: Mapping[str, Any] | None = None) -> Side:
    pytest.importorskip(framework)
    from cgh_bench.transfer_configs.openmmlab import train  # first: it provides mmcv's operators

    from mmengine.registry import MODELS, DefaultScope  # isort: skip

    options = {"data": None, "iterations": None, "gpus": 0, "images_at_a_time": None, "work": Path(), "seed": 0}
    path = frameworks.protocol_file(framework, file)
    config = train.protocol(argparse.Namespace(config=path, weights=weights, settings={}, **options))
    if backbone:
        config.model.backbone = backbone
    with DefaultScope.overwrite_default_scope(framework):
        model = MODELS.build(config.model)
        model.init_weights()
    samples = detection_samples() if framework == "mmdet" else segmentation_samples()

    def prepared(training: bool) -> Any:
        batch = {"inputs": list(objects()[0]), "data_samples": samples}
        return model.data_preprocessor(batch, training=training)

    return Side(
        model,
        "backbone" if weights is None or backbone else "backbone.network",
        lambda: {"loss": model.parse_losses(model(**prepared(True), mode="loss"))[0]},
        lambda: model.extract_feat(prepared(False)["inputs"]),
    )


def detection_samples() -> list[Any]:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    samples, (_, mask) = [], objects()
    for label in range(2):
        sample = DetDataSample(
            metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "scale_factor": (1.0, 1.0)}
        )
        masks = BitmapMasks(mask[None].numpy(), SIDE, SIDE)
        boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([label]), masks=masks)
        samples.append(sample)
    return samples


def segmentation_samples() -> list[Any]:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples, (_, mask) = [], objects()
    for label in range(1, 3):
        sample = SegDataSample(metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE)})
        sample.gt_sem_seg = PixelData(data=label * mask[None].long())
        samples.append(sample)
    return samples


def of_detectron2(file: str, weights: Path | None) -> Side:
    from cgh_bench.transfer_configs.detectron2 import protocol

    from detectron2.modeling import build_model  # isort: skip
    from detectron2.structures import BitMasks, Boxes, Instances  # isort: skip
    from detectron2.utils.events import EventStorage  # isort: skip

    model = build_model(protocol.read(frameworks.protocol_file("detectron2", file), [], 0, None, weights=weights))
    images, mask = objects()
    batch = []
    for label, image in enumerate(images):
        found = Instances((SIDE, SIDE))
        found.gt_boxes, found.gt_classes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]])), torch.tensor([label])
        found.gt_masks = BitMasks(mask[None].bool())
        batch.append({"image": image, "instances": found, "height": SIDE, "width": SIDE})

    def losses() -> Mapping[str, Tensor]:
        with EventStorage():
            return model(batch)

    into = "backbone.bottom_up.network" if weights else "backbone.bottom_up"
    return Side(model, into, losses, lambda: list(model.backbone(model.preprocess_image(batch).tensor).values()))


def sides(framework: str, checkpoint: Checkpoint, folder: Path) -> tuple[Side, Side]:
    """Native and carried; each has the checkpoint's weights, and both have the same heads."""
    file = folder / "weights.safetensors"
    save(checkpoint, file)
    given = checkpoint.weights
    if framework == "mmseg":
        native, carried = (of_openmmlab("mmseg", "animals_seg_any", file, own) for own in (RESNET, None))
    elif framework == "mmdet":
        native, carried = of_openmmlab("mmdet", "animals_det", None), of_openmmlab("mmdet", "animals_det_any", file)
    else:
        native, carried = of_detectron2("animals_det", None), of_detectron2("animals_det_any", file)
        find_converter("detectron2").write(checkpoint, folder / "weights.pth")
        read: Any = arrival.read(folder / "weights.pth")
        given = read["model"]
    arrival.put(given, native.model.state_dict(), (native.backbone,))
    arrival.put(checkpoint.weights, carried.model.state_dict(), (carried.backbone,))
    heads = {k: v for k, v in native.model.state_dict().items() if not k.startswith(f"{native.backbone}.")}
    assert len(heads) > 10
    for name, tensor in heads.items():
        carried.model.state_dict()[name].copy_(tensor)
    return native, carried


def trained(side: Side) -> tuple[list[float], list[Tensor]]:
    """The losses of a short training, and the maps of the images after it."""
    optimizer, curve = torch.optim.SGD(side.model.parameters(), lr=0.01), []
    for step in range(STEPS):
        torch.manual_seed(step)  # of the regions that are sampled, and of dropout
        losses = side.losses()
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    side.model.eval()
    with torch.no_grad():
        return curve, [level.clone() for level in side.maps()]


@pytest.mark.parametrize("framework", ["mmdet", "mmseg", "detectron2"])
def test_outputs_and_training_are_the_same(framework, tmp_path, monkeypatch):
    try:
        frameworks.require_installed(framework)
    except UserError as absent:
        pytest.skip(str(absent))
    if beside := frameworks.find(framework).folder_beside:
        monkeypatch.setattr(sys, "path", [*sys.path, str(Path(sys.prefix, beside))])
    native, carried = sides(framework, random_checkpoint("resnet18"), tmp_path)
    for side in (native, carried):
        side.model.eval()
    with torch.no_grad():
        before = [side.maps() for side in (native, carried)]
    for ours, theirs in zip(*before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for side in (native, carried):
        side.model.train()
    curves, after = zip(*(trained(side) for side in (native, carried)), strict=True)
    assert curves[0][0] != curves[0][-1]
    np.testing.assert_allclose(*curves, rtol=1e-5)
    for ours, theirs in zip(*after, strict=True):
        assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-4
