"""A method in one file: two views of an image get similar features, and a variance term keeps them from collapsing.

The first two terms of VICReg (Bardes et al., ICLR 2022, https://arxiv.org/abs/2105.04906, equations 1 and 5).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.pretrain.parts import Encoder
from cgh_bench.pretrain.ranges import Count, NotNegative
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Augment, Views


@dataclass(eq=False)
class Align(Method):
    """Two views per image. The fields are the settings, which `--set method.width=512` changes."""

    width: Count = 256
    variance_weight: NotNegative = 1.0

    def add_networks(self, architecture: Architecture) -> None:
        """The student: its backbone is built first, so that equal seeds give equal backbones, which are exported."""
        backbone = architecture.build()
        head = nn.Sequential(nn.Linear(backbone.dim, self.width), nn.ReLU(), nn.Linear(self.width, self.width))
        self.student = Encoder(backbone, head)

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Named scalar losses; the loop minimises their sum and logs each."""
        one, two = (self.student(view) for view in views)
        deviations = torch.stack([(rows.var(dim=0) + 1e-4).sqrt() for rows in (one, two)])
        return {
            "distance": (one - two).square().mean(),
            "variance": self.variance_weight * (1 - deviations).relu().mean(),
        }


VIEW = Augment(size=48, crop_area=(0.3, 1.0), jitter=0.8, brightness=0.4, contrast=0.4)

RECIPES = {
    "align_r18_animals": Recipe(
        method=Align(),
        architecture=ResNet("resnet18"),
        views=Views((VIEW, VIEW)),
        data="animals",
        epochs=20,
        batch_size=128,
        base_lr=0.1,
        warmup_epochs=1,
    )
}
