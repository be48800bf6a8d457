"""What a pretraining run is made of: the recipe, and the contract of a method."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from cgh_bench.backbone import Architecture, Backbone
from cgh_bench.checkpoint import Preprocessing
from cgh_bench.discovery import registered
from cgh_bench.errors import UserError, unknown
from pretrain.views import Views

IMAGENET = Preprocessing()
"""Mean and standard deviation of ImageNet, which every downstream framework has as its default."""


class Method(nn.Module):
    """A self-supervised method: its networks, its state and its loss. The loop knows nothing else of it."""

    @property
    def backbone(self) -> Backbone:
        """The trunk that is trained and exported."""
        raise NotImplementedError

    def forward(self, views: list[Tensor], epoch: float) -> dict[str, Tensor]:
        """The scalar losses of one step by name; the loop descends on their sum and logs each.

        Args:
            views: one normalised batch (B, 3, H, W) for each augmentation of the recipe, row for row the same images.
            epoch: epochs done so far, with the fraction of the current one, for schedules.
        """
        raise NotImplementedError


class MethodConfig(Protocol):
    """A frozen dataclass with everything a method can be told; read exactly once, when it is built."""

    def build(self, architecture: Architecture) -> Method:
        """The method around a new trunk, which draws its weights first: equal seeds, equal trunks."""
        ...

    def check(self, batch_size: int, views: int) -> None:
        """Raise a UserError unless the method can work with this global batch and this many views."""
        ...


@dataclass(frozen=True)
class Recipe:
    """A pretraining run, complete: the same recipe, data and machine give the same weights, bit for bit on a CPU."""

    method: MethodConfig
    architecture: Architecture
    views: Views
    data: str
    """A data set's name (`cgh-bench list data`) or folder; its train split is used, its labels are not."""
    epochs: int
    batch_size: int
    """Of all processes together."""
    base_lr: float
    """At a batch of 256; the rate used is `base_lr * batch_size / 256` (Goyal et al., arXiv 1706.02677)."""
    warmup_epochs: float
    """Linear from zero; then half a cosine down to zero."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    """Of SGD, or the first beta of AdamW (whose second is 0.999)."""
    weight_decay: float = 1e-4
    """Of parameters with two or more dimensions; biases and norms have none."""
    preprocessing: Preprocessing = IMAGENET
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.warmup_epochs < 0:
            raise UserError(
                f"epochs {self.epochs} and warmup_epochs {self.warmup_epochs} must be at least 0, "
                f"batch_size {self.batch_size} at least 1"
            )


def find(name: str) -> Recipe:
    """The registered recipe of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    recipes = registered("pretrain.methods", "RECIPES")
    if name not in recipes:
        raise unknown("recipe", name, recipes)
    recipe: Recipe = recipes[name]
    return recipe
