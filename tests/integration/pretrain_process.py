"""A tiny pretraining on made-up images, as a module for tests and as a process that they start, kill and multiply."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cgh_bench import data
from cgh_bench.backbones.timm import Timm
from cgh_bench.data.image_set import GreyImages
from cgh_bench.pretrain.methods.cgh import Cgh
from cgh_bench.pretrain.methods.moco_v2 import MocoV2
from cgh_bench.pretrain.recipe import Recipe
from cgh_bench.pretrain.views import Augment, Views

WEAK = Augment(size=33, crop_area=(0.4, 1.0), rotation_degrees=10)
STRONG = replace(WEAK, jitter=0.8, brightness=0.4, contrast=0.4, blur=0.5, blur_sigma=(0.1, 1.0))
TINY_CGH = Recipe(
    method=Cgh(dim_global=16, dim_hyper=16, hidden=32, queue_length=28, momentum=0.9, handover_epochs=1.5, bn_groups=1),
    architecture=Timm("test_resnet", (("zero_init_last", False),)),  # a thirtieth of a ResNet-18
    views=Views((WEAK, STRONG)),
    data="made-up",
    epochs=3,
    batch_size=8,
    base_lr=0.5,
    warmup_epochs=0.5,
)
TINY_MOCO = replace(TINY_CGH, method=MocoV2(dim=16, hidden=32, queue_length=28, momentum=0.9, bn_groups=1))
STEPS_PER_EPOCH = 5


def made_up(n: int = 43) -> GreyImages:
    """Blobs: smooth noise, different in each image."""
    coarse = torch.rand(n, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(coarse, (33, 33), mode="bilinear")[:, 0]
    return GreyImages("made-up/train", ("blob",), np.zeros(n, np.int64), "0" * 16, (pixels * 255).byte().numpy())


def slowly() -> None:
    """Steps of a tenth of a second, most of it idle: time to stop or kill a run between two of them."""
    from cgh_bench.pretrain import train

    descend = train.descend

    def slow(*arguments: object) -> dict[str, float]:
        time.sleep(0.1)
        return descend(*arguments)

    train.descend = slow


def main(out: str, bn_groups: str = "1", epochs: str = "3", base_lr: str = "0.5", pace: str = "") -> None:
    """Train the tiny CGH in `out`, perhaps `slowly`; exit code 130 when interrupted."""
    from cgh_bench.pretrain.train import train

    torch.set_num_threads(1)
    if pace:
        slowly()
    data.load = lambda *_, **__: made_up()
    method = replace(TINY_CGH.method, bn_groups=int(bn_groups))
    recipe = replace(TINY_CGH, method=method, epochs=int(epochs), base_lr=float(base_lr))
    try:
        train(recipe, "tiny", Path(out))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
