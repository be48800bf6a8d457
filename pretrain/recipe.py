"""What a pretraining run is made of: the recipe, and the contract of a method. Both are values that need no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from cgh_bench.backbones import Architecture
from cgh_bench.core import registry
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.data.preprocessing import Preprocessing
from cgh_bench.pretrain.ranges import Count, NotNegative, Range, Whole, check_ranges
from cgh_bench.pretrain.views import Views

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Module

    from cgh_bench.data import ImageSet
    from cgh_bench.networks.base import Backbone
else:
    Module = object  # until it is built, a method is its settings

IMAGENET = Preprocessing()
"""Mean and standard deviation of ImageNet, which every downstream framework has as its default."""


class Method(Module):
    """A pretraining method: its fields are its settings, `build` adds its networks, `forward` gives its losses.

    A method is one file in `methods/`: a subclass of this that is a `@dataclass(eq=False)`, and its `RECIPES`. A recipe
    holds a method without networks, its settings: they load no torch, which the functions import.
    """

    uses_labels: ClassVar[bool] = False
    """Whether the dataset must have labels."""
    number_of_views: ClassVar[int] = 2
    """How many views of each image the method takes; 0 for one that does not train."""
    student: Any
    """The network that is trained; its attribute `backbone` is what a run exports."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def backbone(self) -> Backbone:
        """The backbone that is trained and exported."""
        return cast("Backbone", self.student.backbone)

    @property
    def constant_rate(self) -> tuple[str, ...]:
        """Prefixes of the names of parameters whose learning rate stays at its peak."""
        return ()

    def build(self, architecture: Architecture) -> Self:
        """The method as an `nn.Module`, with its networks.

        The backbone draws its weights first: equal seeds, equal backbones.
        """
        from torch import nn

        kind = type(type(self).__name__, (type(self), nn.Module), {})
        method: Self = object.__new__(kind)
        nn.Module.__init__(method)
        vars(method).update(vars(self))
        method.add_networks(architecture)
        return method

    def add_networks(self, architecture: Architecture) -> None:
        """Set `student`, beginning with `architecture.build()`, and whatever else the losses need."""
        raise NotImplementedError

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that the method cannot work with, before anything is trained.

        Here: another number of views, or a batch that does not fit the queue and BN groups of a method that has them.

        Raises:
            UserError: says what does not fit.
        """
        views = len(recipe.views.augments)
        if views != self.number_of_views:
            raise UserError(
                f"{type(self).__name__} takes {self.number_of_views} views per image (views.augments); "
                f"the recipe has {views}"
            )
        self.check_batch(recipe)

    def check_batch(self, recipe: Recipe) -> None:
        """Refuse a batch that does not fit `queue_length` and `bn_groups`, of a method that has such fields."""
        groups, length = (getattr(self, name, 0) for name in ("bn_groups", "queue_length"))
        if groups and length:
            from cgh_bench.pretrain.parts import check_batch

            check_batch(recipe.images_per_pass, groups, length)

    def check_images(self, images: ImageSet) -> None:
        """Refuse images whose labels the method cannot use, before anything is trained; here none.

        Raises:
            UserError: says what does not fit.
        """

    def begin_step(self, step: int, steps: int) -> None:
        """Called before each optimiser step, however many forward passes it adds up: momentum encoders follow here.

        Args:
            step: optimiser steps done, from 0.
            steps: optimiser steps of the whole run.
        """

    def frozen(self, epoch: float) -> list[nn.Parameter]:
        """The trained parameters that the step at `epoch` leaves as they are; weight decay included."""
        return []

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The scalar losses of one batch by name; the loop minimises their sum and logs each.

        Args:
            views: one normalised batch (B, 3, H, W) per augmentation of the recipe, row for row the same images.
            epoch: epochs done so far, with the fraction of the current one, for schedules.
            labels: classes (B,) int64 of the images, which the supervised baseline alone uses.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Recipe:
    """A complete pretraining run: the same recipe, data and machine give the same weights, bit for bit on a CPU."""

    method: Method
    architecture: Architecture
    views: Views
    data: str
    """Name (`cgh-bench list data`) or folder of a dataset; its train split is used. For methods that use no labels, any
    folder of images."""
    epochs: Whole
    batch_size: Count
    """Images per optimiser step, all processes together."""
    base_lr: NotNegative
    """Learning rate for a batch of 256; `base_lr * batch_size / 256` is used (Goyal et al., arXiv 1706.02677)."""
    warmup_epochs: NotNegative
    """The learning rate rises linearly from zero; then it falls to zero by half a cosine."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    momentum: Annotated[float, Range(at_least=0, below=1)] = 0.9
    """For SGD and LARS; for AdamW its first beta (the second is 0.999)."""
    weight_decay: NotNegative = 1e-4
    """For the parameters that `decay` selects."""
    preprocessing: Preprocessing = IMAGENET
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """The networks' arithmetic: fp32 without TF32, tf32 (NVIDIA GPUs alone), or autocast to bf16 or fp16."""
    seed: Whole = 0
    decay: Literal["matrices", "all", "names"] = later("matrices")
    """Which parameters decay. matrices: those of two and more dimensions, so neither biases nor norms; all: every one;
    names: those without "bn" or "bias" in their name, as in ReSSL's and CGH's code; it misses norms of shortcuts."""
    clip_gradient: NotNegative = later(0.0)  # noqa: RUF009 (it makes a field)
    """Largest norm of each parameter's own gradient (DINO's rule); 0 does not clip."""
    sync_bn: bool = later(False)
    """BatchNorm statistics over the batches of all processes; needs GPUs. Not with a method's `bn_groups` above 1."""
    accumulate: Count = later(1)  # noqa: RUF009 (it makes a field)
    """Forward passes per optimiser step, to save memory. The learning rate depends on the whole `batch_size`; BatchNorm
    and queues see one part at a time."""
    compile: bool = later(False)
    """Use `torch.compile`: other rounding, and slow first steps."""
    corrupt_limit: Whole = later(10)  # noqa: RUF009 (it makes a field)
    """A process stops when more image files than this cannot be read; up to then the next image replaces each."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.sync_bn and getattr(self.method, "bn_groups", 1) > 1:
            raise UserError("sync_bn and bn_groups contradict each other; set method.bn_groups=1 or sync_bn=false")

    @property
    def images_per_pass(self) -> int:
        """Images of one forward pass, all processes together."""
        return self.batch_size // self.accumulate


def find(name: str) -> Recipe:
    """The registered recipe of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    recipe: Recipe = registry.find("cgh_bench.pretrain.methods", "RECIPES", name, "recipe")
    return recipe
