"""No pretraining: the control. Zero epochs export the trunk as it was initialised, the start of every other recipe."""

from dataclasses import dataclass

from torch import Tensor

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ResNet
from cgh_bench.pretrain.recipe import Method, Recipe
from cgh_bench.pretrain.views import Views


@dataclass(frozen=True)
class RandomInit:
    """Nothing to configure; the seed is the recipe's."""

    def check(self, batch_size: int, views: int) -> None:
        """Anything will do: no batch is ever made."""

    def build(self, architecture: Architecture) -> "RandomInitMethod":
        """A trunk."""
        return RandomInitMethod(architecture)


class RandomInitMethod(Method):
    """A trunk and no loss."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.trunk = architecture.build()

    @property
    def backbone(self) -> Backbone:
        """The trunk."""
        return self.trunk

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """No terms: training this is an error of the recipe, which the loop reports."""
        return {}


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
