"""An epoch of every method, tiny, with BatchNorm held still: then nothing but the method knows of other images.

As a process that a test starts, once alone and once twofold.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pretrain_process import STRONG, TINY_CGH, TINY_MOCO, WEAK, made_up
from torch import nn
from torch.nn import functional as F

from cgh_bench import data
from cgh_bench.core import dist
from cgh_bench.pretrain.methods.byol import Byol
from cgh_bench.pretrain.methods.dino import Dino
from cgh_bench.pretrain.methods.ressl import Ressl
from cgh_bench.pretrain.methods.simsiam import SimSiam
from cgh_bench.pretrain.methods.supervised import Supervised
from cgh_bench.pretrain.recipe import Method
from cgh_bench.pretrain.views import Views


class StillNorm(nn.modules.batchnorm._BatchNorm):
    """By the running statistics, which stay as they began."""

    def forward(self, input):
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


QUEUE = {"dim": 16, "hidden": 32, "queue_length": 28, "bn_groups": 1}
TWO, CROPS = Views((STRONG, STRONG)), Views((STRONG, STRONG, replace(STRONG, size=20)))
TINY = replace(TINY_CGH, epochs=1, base_lr=0.01, warmup_epochs=0)
RECIPES = {
    "cgh": replace(TINY, method=replace(TINY_CGH.method, centre_momentum=0.9)),
    "moco_v2": replace(TINY, method=TINY_MOCO.method),
    "ressl": replace(TINY, method=Ressl(**QUEUE)),
    "simsiam": replace(TINY, method=SimSiam(dim=32, predictor_hidden=16), views=TWO),
    "byol": replace(TINY, method=Byol(dim=16, hidden=32, momentum=0.9), views=TWO, optimizer="lars", base_lr=1.0),
    "dino": replace(TINY, method=Dino(classes=24, hidden=32, bottleneck=16, momentum=0.9, frozen_epochs=0.5),
                    views=CROPS, clip_gradient=0.5),
    "supervised": replace(TINY, method=Supervised(classes=4), views=Views((WEAK,))),
}  # fmt: skip


def main(out):
    """Train all of them below `out`."""
    from cgh_bench.pretrain.train import train

    build = Method.build

    def still(self, architecture):
        method = build(self, architecture)
        for module in method.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.__class__ = StillNorm
        return method

    Method.build = still
    torch.set_num_threads(1)
    images = made_up()
    labels = np.arange(len(images)) % 4
    data.load = lambda *_, **__: replace(images, classes=tuple("abcd"), labels=labels)
    with dist.process_group():
        for name, recipe in RECIPES.items():
            train(recipe, name, Path(out) / name)


if __name__ == "__main__":
    main(sys.argv[1])
