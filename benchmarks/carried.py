"""What a carried backbone costs beside the framework's own: training steps of animals_det with a ResNet-50.

    python benchmarks/carried.py

The same weights, images and heads in mmdetection's ResNet and in ours; steps of the two sides alternate within one
process. Processor time counts, as the median of the ratio within a pair. Saves `results/carried.json`.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cgh_bench.checkpoint import random_checkpoint, save
from cgh_bench.foreign import frameworks
from cgh_bench.transfer_configs.contract import arrival
from cgh_bench.transfer_configs.openmmlab import train  # first: it provides mmcv's operators

from mmdet.structures import DetDataSample  # isort: skip
from mmdet.structures.mask import BitmapMasks  # isort: skip
from mmengine.registry import MODELS, DefaultScope  # isort: skip
from mmengine.structures import InstanceData  # isort: skip

IMAGES, SIDE = 8, 128
NATIVE = {"model.backbone.depth": 50, "model.neck.in_channels": [256, 512, 1024, 2048]}


def main() -> None:
    """Measure and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    checkpoint = random_checkpoint("resnet50")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.safetensors")
        save(checkpoint, weights)
        native = step_of("animals_det", NATIVE, None, checkpoint.weights, "backbone")
        carried = step_of("animals_det_any", {}, weights, checkpoint.weights, "backbone.network")
    native(), carried()  # what is done once
    pairs = [(native(), carried()) for _ in range(steps)]
    document = {
        "command": "python benchmarks/carried.py",
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]},
        "steps": steps,
        "carried_over_native": round(median(ours / theirs for theirs, ours in pairs), 3),
        "native_seconds": round(median(theirs for theirs, _ in pairs), 3),
        "carried_seconds": round(median(ours for _, ours in pairs), 3),
    }
    out = Path(__file__).parent / "results" / "carried.json"
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(out.read_text(encoding="utf-8"))


def step_of(
    protocol: str, settings: dict[str, Any], weights: Path | None, tensors: dict[str, torch.Tensor], into: str
) -> Callable[[], float]:
    """A function that takes one training step, and returns its seconds of processor time."""
    file = frameworks.protocol_file("mmdet", protocol)
    options = {"data": None, "iterations": None, "gpus": 0, "images_at_a_time": None, "work": Path(), "seed": 0}
    config = train.protocol(argparse.Namespace(config=file, weights=weights, settings=settings, **options))
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
        model.init_weights()
    arrival.put(tensors, model.state_dict(), (into,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> float:
        torch.manual_seed(0)
        began = time.process_time()
        loss, _ = model.parse_losses(model(**model.data_preprocessor(scene(), training=True), mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.process_time() - began

    return step


def scene() -> dict[str, Any]:
    """Images of noise with a box and a mask each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    samples = []
    for number in range(IMAGES):
        sample = DetDataSample(metainfo={"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "scale_factor": (1, 1)})
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        mask[0, 16:80, 16:80] = 1
        boxes, labels = torch.tensor([[16.0, 16.0, 80.0, 80.0]]), torch.tensor([number])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(mask.numpy(), SIDE, SIDE))
        samples.append(sample)
    return {"inputs": list(images), "data_samples": samples}


if __name__ == "__main__":
    main()
