"""The frameworks in this process, which saves starting theirs; and their networks, with two small images."""

import argparse
import contextlib
import importlib
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from cgh_bench.core.errors import UserError
from cgh_bench.foreign import frameworks

SIDE = 64


def import_here(framework: str, patch: pytest.MonkeyPatch) -> None:
    """Let this process import the framework until `patch` is undone; skip where it is not installed.

    The datasets that detectron2 is told of are forgotten then.
    """
    try:
        frameworks.require_installed(framework)
    except UserError as absent:
        pytest.skip(str(absent))
    known = frameworks.find(framework)
    if known.folder_beside:
        patch.setattr(sys, "path", [*sys.path, str(Path(sys.prefix, known.folder_beside))])
    importlib.import_module(f"cgh_bench.transfer_configs.{known.folder}")  # first: it provides mmcv's operators
    if framework == "detectron2":
        from detectron2.data import DatasetCatalog, MetadataCatalog

        for catalog in (DatasetCatalog, MetadataCatalog):
            patch.setattr(catalog, "data", dict(catalog.data))


def run_here(framework: str, module: str, file: str, *options: str) -> int | None:
    """Run a module of the framework's folder with a protocol file as its process would; returns its exit code."""
    known = frameworks.find(framework)
    arguments = [f"{known.folder}.{module}", f"--config={frameworks.protocol_file(framework, file)}", *options]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        if known.folder == "openmmlab":
            from mmengine.registry import DefaultScope

            stack.enter_context(DefaultScope.overwrite_default_scope(framework))
        patch.setattr(sys, "argv", arguments)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        try:
            return importlib.import_module(f"cgh_bench.transfer_configs.{known.folder}.{module}").main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


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
    from detectron2.structures import BitMasks, Boxes, Instances, Keypoints  # isort: skip
    from detectron2.utils.events import EventStorage  # isort: skip

    model = build_model(protocol.read(frameworks.protocol_file("detectron2", file), [], 0, None, weights=weights))
    images, mask = objects()
    batch = []
    for label, image in enumerate(images):
        found = Instances((SIDE, SIDE))
        found.gt_boxes, found.gt_classes = Boxes(torch.tensor([[8.0, 8.0, 40.0, 40.0]])), torch.tensor([label])
        found.gt_masks = BitMasks(mask[None].bool())
        found.gt_keypoints = Keypoints([[[24.0, 24.0, 2.0]] * 17])
        batch.append({"image": image, "instances": found, "height": SIDE, "width": SIDE})

    def losses() -> Mapping[str, Tensor]:
        with EventStorage():
            return model(batch)

    into = "backbone.bottom_up.network" if weights else "backbone.bottom_up"
    return Side(model, into, losses, lambda: list(model.backbone(model.preprocess_image(batch).tensor).values()))
