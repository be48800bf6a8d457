"""A tiny training on made-up images, for one process or several."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from toy_images import toy_data

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.descent import Descent, HeadTraining
from cgh_bench.core.device import Resources, limited
from cgh_bench.core.dist import process_group
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.depth import Depth
from cgh_bench.tasks.finetune import FineTune
from cgh_bench.tasks.incontext import InContext
from cgh_bench.tasks.linear_segmentation import LinearSegmentation
from cgh_bench.tasks.linear_sgd import LinearSgd
from cgh_bench.tasks.normals import Normals

# 30 or 40 images in batches of 7, which no number of processes divides.
TASKS = {
    "resnet18": LinearSgd(
        data="toy",
        crop=Crop(32, (0.5, 1.0)),
        transform=AS_IS,
        features=("layer4", "layer3"),
        learning_rates=(0.03, 1.0),
        descent=Descent(trust=0.5),
        epochs=2,
        batch_size=7,
        held_out=0.25,
    ),
    "vit_tiny_patch16_32": FineTune(
        data="toy", crop=Crop(32), transform=AS_IS, trunk_rate=0.001, head_rate=0.01, epochs=2, batch_size=7
    ),
}

HEAD = HeadTraining(0.02, iterations=6, batch_size=3, warmup=2, dropout=0.1)  # which two processes do not divide
CROPS = LinearSegmentation(size=64, short_side=64, stride=64, view="crops", loss="pixels", training=HEAD)
DENSE = {
    "cached": (replace(CROPS, view="windows", loss="patches"), "squares"),
    "computed": (replace(CROPS, test="whole"), "squares"),
    "depth": (Depth(size=64, feature="layer3", training=HEAD), "steps"),
    "normals": (Normals(size=64, feature="layer3", training=HEAD), "steps"),
    "incontext": (InContext(size=64, k=5), "squares"),
}


def dense(data: str, out: str) -> None:
    """Evaluate every task of `DENSE` in `out`, on the folders that lie in `data`."""
    torch.set_num_threads(1)
    with process_group(), limited(Resources(workers=0)):
        for name, (given, images) in DENSE.items():
            folder, task = Path(out) / name, replace(given, data=str(Path(data) / images))
            folder.mkdir(parents=True, exist_ok=True)
            folders = Folders(folder, folder / "cache")
            found = task.run(random_checkpoint("resnet18"), task.load_data(folders.cache), folders, 0)
            folders.write("metrics.json", json.dumps(found))


def main(arch: str, out: str) -> None:
    """Train in `out` the task for that backbone."""
    torch.set_num_threads(1)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with process_group():
        TASKS[arch].run(random_checkpoint(arch), toy_data(), Folders(folder, folder / "cache"), 0)
