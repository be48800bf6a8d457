"""What a pretraining run is made of: the recipe, and the contract of a method."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor, nn

from cgh_bench.backbones import Architecture, Backbone
from cgh_bench.backbones.resnet import ARCHS
from cgh_bench.checkpoint import Preprocessing
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.registry import registered
from cgh_bench.pretrain.views import Views

IMAGENET = Preprocessing()
"""Mean and standard deviation of ImageNet, which every downstream framework has as its default."""


def at_least(minimum: int, **values: float) -> None:
    """Refuse the first of the named `values` that is less."""
    for name, value in values.items():
        if value < minimum:
            raise UserError(f"{name} {value} must be at least {minimum}")


class Method(nn.Module):
    """A pretraining method: its networks, its state and its loss. The loop knows nothing else of it."""

    constant_rate: tuple[str, ...] = ()
    """Beginnings of the names of parameters whose learning rate stays at its peak."""

    @property
    def backbone(self) -> Backbone:
        """The trunk that is trained and exported."""
        raise NotImplementedError

    def begin_step(self, done: float) -> None:
        """Called once before each step of descent, however many batches it adds up: teachers follow here.

        Args:
            done: the share of the run that is over, from 0 up to 1.
        """

    def forward(self, views: list[Tensor], epoch: float, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The scalar losses of one batch by name; the loop descends on their sum and logs each.

        Args:
            views: one normalised batch (B, 3, H, W) for each augmentation of the recipe, row for row the same images.
            epoch: epochs done so far, with the fraction of the current one, for schedules.
            labels: classes (B,) int64 of the images, which the supervised baseline alone looks at.
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
    """A data set's name (`cgh-bench list data`) or folder; its train split is used."""
    epochs: int
    batch_size: int
    """Of all processes together."""
    base_lr: float
    """At a batch of 256; the rate used is `base_lr * batch_size / 256` (Goyal et al., arXiv 1706.02677)."""
    warmup_epochs: float
    """Linear from zero; then half a cosine down to zero."""
    optimizer: Literal["sgd", "adamw", "lars"] = "sgd"
    momentum: float = 0.9
    """Of SGD and LARS, or the first beta of AdamW (whose second is 0.999)."""
    weight_decay: float = 1e-4
    """Of the parameters that `decay` names."""
    preprocessing: Preprocessing = IMAGENET
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    decay: Literal["matrices", "all", "names"] = later("matrices")
    """What decays: parameters of two and more dimensions, which spares biases and norms; everything; or whatever has
    neither "bn" nor "bias" in its name, as in ReSSL's and CGH's code, which so overlooks the norms of shortcuts."""
    clip_gradient: float = later(0.0)
    """Largest norm of each parameter's own gradient (DINO's rule); 0 does not clip."""
    sync_bn: bool = later(False)
    """BatchNorm over the batches of all processes; needs GPUs. Not with a method's `bn_groups` above 1."""
    accumulate: int = later(1)
    """A step's batch is computed in so many parts, for want of memory. The learning rate goes by `batch_size`, the
    whole; BatchNorm sees the parts, and queues take in each."""
    compile: bool = later(False)
    """By `torch.compile`; other rounding, and slow first steps."""
    corrupt_limit: int = later(10)
    """Unreadable files, named and replaced by their neighbours, at which a process stops."""

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, accumulate=self.accumulate)
        at_least(0, epochs=self.epochs, warmup_epochs=self.warmup_epochs, base_lr=self.base_lr, seed=self.seed)
        at_least(0, weight_decay=self.weight_decay, momentum=self.momentum, clip_gradient=self.clip_gradient)
        at_least(0, corrupt_limit=self.corrupt_limit)
        if self.momentum >= 1:
            raise UserError(f"momentum {self.momentum} must be below 1")
        if self.architecture.name not in ARCHS:
            raise UserError(
                f"{self.architecture.name!r} cannot be pretrained here, where methods are a residual network's; "
                f"choose one of {', '.join(ARCHS)}"
            )
        if self.sync_bn and getattr(self.method, "bn_groups", 1) > 1:
            raise UserError("sync_bn and bn_groups contradict each other; set method.bn_groups=1 or sync_bn=false")


def find(name: str) -> Recipe:
    """The registered recipe of that name.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    recipes = registered("cgh_bench.pretrain.methods", "RECIPES")
    if name not in recipes:
        raise unknown("recipe", name, recipes)
    recipe: Recipe = recipes[name]
    return recipe
