"""A method in one file: two views of an image get near features, and a variance term keeps them from collapsing.

The first two terms of VICReg (Bardes et al., ICLR 2022, https://arxiv.org/abs/2105.04906, equations 1 and 5).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Augment, Views


@dataclass(frozen=True)
class Align:
    """Everything the method can be told; read once, when it is built."""

    width: int = 256
    variance_weight: float = 1.0

    def check(self, batch_size: int, views: int) -> None:
        """Refuse what cannot work, before anything is trained."""
        if views != 2:
            raise UserError(f"Align takes 2 views, the recipe has {views}; set views.augments to two")

    def build(self, architecture: Architecture) -> "AlignMethod":
        """The method around a new trunk, which draws its weights first: equal seeds, equal trunks."""
        return AlignMethod(self, architecture)


class AlignMethod(Method):
    """Trunk and head."""

    def __init__(self, config: Align, architecture: Architecture) -> None:
        super().__init__()
        self.config, self.trunk = config, architecture.build()
        self.head = nn.Sequential(nn.LazyLinear(config.width), nn.ReLU(), nn.Linear(config.width, config.width))
        self.head(torch.zeros(2, self.trunk.dim))

    @property
    def backbone(self) -> Backbone:
        """The trunk that is trained and exported."""
        return self.trunk

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Named scalar losses; the loop adds them up, descends and logs each."""
        one, two = (self.head(self.trunk(view)) for view in views)
        spread = torch.stack([(rows.var(dim=0) + 1e-4).sqrt() for rows in (one, two)])
        return {
            "distance": (one - two).square().mean(),
            "variance": self.config.variance_weight * (1 - spread).relu().mean(),
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
