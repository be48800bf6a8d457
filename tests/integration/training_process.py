"""A tiny training on made-up images, for one process or several."""

from pathlib import Path

import torch
from toy_images import toy_data

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.core.descent import Descent
from cgh_bench.core.dist import process_group
from cgh_bench.data.transform import AS_IS, Crop
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.finetune import FineTune
from cgh_bench.tasks.linear_sgd import LinearSgd

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


def main(arch: str, out: str) -> None:
    """Train in `out` the task for that backbone."""
    torch.set_num_threads(1)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with process_group():
        TASKS[arch].run(random_checkpoint(arch), toy_data(), Folders(folder, folder / "cache"), 0)
