"""No pretraining: the control. Zero epochs export the backbone as initialised, where every other recipe starts."""

from dataclasses import dataclass
from typing import ClassVar

from cgh_bench.backbones import Architecture
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Views


@dataclass(eq=False)
class RandomInit(Method):
    """A backbone and no loss; the seed is the recipe's."""

    number_of_views: ClassVar[int] = 0

    def check(self, recipe: Recipe) -> None:
        """Anything will do: no batch is ever made."""

    def add_networks(self, architecture: Architecture) -> None:
        """A backbone alone."""
        from torch import nn

        from cgh_bench.pretrain.parts import Encoder

        self.student = Encoder(architecture.build(), nn.Identity())


RECIPES = {
    "random_r18_animals": Recipe(
        method=RandomInit(),
        architecture=ResNet("resnet18"),
        views=Views(),
        data="animals",
        epochs=0,
        batch_size=128,
        base_lr=0.0,
        warmup_epochs=0,
    )
}
