"""The contract of a backbone, the project's central interface: whoever uses one never asks which family it is of.

An `Architecture` is a value: it says everything about a network that its tensors do not, and builds it. A `Backbone` is
the network without its classifier. A family is one file of this package, with a subclass of each (see `ResNet`).
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cgh_bench.core import config
from cgh_bench.core.errors import UserError, unknown

GLOBAL_FEATURE = "layer4"
"""The global feature of a backbone of any family. The name is a ResNet's, because protocol ids contain it."""


class _QuickGELU(nn.Module):
    """CLIP's approximation of GELU: x · sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": _QuickGELU,
    "silu": nn.SiLU,
}
"""Activations by timm's names."""


@dataclass(frozen=True)
class Stage:
    """One map of a backbone's pyramid."""

    channels: int
    stride: int
    """Pixels of the image per position of the map."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a transformer after its final norm."""

    patches: Tensor
    """(B, N, D), row by row."""
    grid: tuple[int, int]
    """Rows and columns of patches; N is their product."""
    cls: Tensor | None
    """(B, D), or None for a network without a class token."""
    registers: Tensor
    """(B, R, D); R is 0 for a network without registers."""


class Architecture(ABC):
    """What must be known, beside its weights, to build a backbone. Subclasses are frozen dataclasses."""

    RECORDED_AS: ClassVar[str] = ""
    """The name of the class in records and ids, where that is not its own."""
    BUILDS_ON_META: ClassVar[bool] = False
    """Whether all of the network's state is in its weights, so that it can be built without memory and filled."""
    GENERIC: ClassVar[bool] = False
    """Whether the family builds networks of any kind; names go to the others first."""
    UNTOLD: ClassVar[Mapping[str, str]] = {}
    """The properties that no tensor tells (`stem.padding`), each with what its values mean; a property is the field of
    that name, with `_` for the dot."""

    name: str

    @classmethod
    @abstractmethod
    def names(cls) -> Iterable[str]:
        """The names that users can type, for lists and for the nearest name of a mistyped one."""

    @classmethod
    @abstractmethod
    def named(cls, name: str) -> Self | None:
        """The usual architecture of that name, or None if the family has none."""

    @abstractmethod
    def build(self) -> "Backbone":
        """The network, with its library's initial weights."""

    @abstractmethod
    def targets(self, feature: str) -> tuple[str, ...]:
        """The parts that `feature` names, in network order; several are joined by `+`.

        `layer4` names the global feature in every family.

        Raises:
            UserError: there is no such part (the nearest names are given).
        """

    @property
    def identity(self) -> str:
        """What the ids of checkpoints are made of; later fields at their default are left out."""
        kept = [f"{name}={value!r}" for name, value in self.recorded().items()]
        return f"{self.RECORDED_AS or type(self).__name__}({', '.join(kept)})"

    def recorded(self) -> dict[str, Any]:
        """The fields that ids and files have."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type] # subclasses are dataclasses
        values = [(field, getattr(self, field.name)) for field in fields if field.repr]
        return {field.name: value for field, value in values if config.counts(field, value)}

    @property
    def untold(self) -> tuple[str, ...]:
        """The names of `UNTOLD` that make a difference to this architecture."""
        return tuple(self.UNTOLD)

    def value(self, name: str) -> Any:
        """The property `name` of `UNTOLD`."""
        return getattr(self, name.replace(".", "_"))

    def having(self, **values: Any) -> Self:
        """The same with other values of properties, the dot of their names as `_`.

        Raises:
            UserError: no network has such values.
        """
        return dataclasses.replace(self, **values)  # type: ignore[type-var]

    @property
    def skeleton(self) -> "Backbone":
        """The network on the meta device: names, shapes and stages without memory."""
        return _skeleton(self)

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The names and shapes of the backbone's tensors."""
        return {key: tensor.shape for key, tensor in self.skeleton.state_dict().items()}

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of images that the network surely accepts."""
        return 224, 224

    def width(self, targets: tuple[str, ...]) -> int:
        """The width D of what `Backbone.pooled` returns for `targets`."""
        return self.skeleton.width(targets)

    @property
    def size_multiple(self) -> int:
        """The number of pixels that both sides of an image must be multiples of."""
        return 1

    def require_size(self, height: int, width: int) -> None:
        """Refuse images of a size that the network cannot take.

        Raises:
            UserError: names the size and those that are accepted.
        """
        if height % self.size_multiple or width % self.size_multiple:
            raise UserError(
                f"{self.name} takes images whose sides are multiples of {self.size_multiple}, not {height}x{width}; "
                "set the transform's crop (or resize) so"
            )

    def timm_arguments(self) -> dict[str, Any]:
        """The arguments of `timm.create_model` that build the same network, under the same names.

        Raises:
            UserError: timm has no such network.
        """
        raise UserError(f"timm cannot build {self}")

    def transformers_config(self) -> dict[str, Any]:
        """The `config.json` by which transformers' `AutoModel` builds the same network.

        Raises:
            UserError: transformers has no such network.
        """
        raise UserError(f"transformers cannot build {self.name} of the {type(self).__name__} family; convert to timm")

    def with_weights(self, weights: Mapping[str, Tensor], copy: bool = True) -> "Backbone":
        """The network with `weights`, in eval mode; without `copy` it shares their memory and must not be trained."""
        with torch.device("meta" if self.BUILDS_ON_META else "cpu"):
            backbone = self.build()
        if copy and self.BUILDS_ON_META:
            backbone.to_empty(device="cpu")
        backbone.load_state_dict(weights, assign=not copy)
        return backbone.eval()


@cache
def _skeleton(architecture: Architecture) -> "Backbone":
    with without_memory():
        return architecture.build().eval()


@contextmanager
def without_memory() -> Iterator[None]:
    """Networks built here are on the meta device; nothing is written to their tensors, which is quick."""
    with torch.device("meta"), _Unwritten():
        yield


class _Unwritten(TorchFunctionMode):
    """Initialisation does nothing; torch would work out the shape of every draw in Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = args[0] if args else kwargs.get("tensor")
        return given if func.__name__ in _WRITING and given.is_meta else func(*args, **kwargs)


_WRITING = {
    f"{name}_" for name in ("add", "clamp", "copy", "div", "erfinv", "fill", "mul", "normal", "uniform", "zero")
}


class Backbone(nn.Module):
    """A network without its classifier.

    Attributes:
        architecture: what was built.
        stages: the maps that `pyramid` returns, in network order.
    """

    architecture: Architecture
    stages: Mapping[str, Stage]

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """The map of every stage.

        Args:
            images: (B, 3, H, W), preprocessed.

        Returns:
            {stage: (B, C, h, w)}, in the order of `stages`.

        Raises:
            UserError: the network does not accept images of that size.
        """
        return self.global_and_pyramid(images)[1]

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The global feature (B, D) and the pyramid of `images` (B, 3, H, W), from one pass."""
        raise NotImplementedError

    def tokens(self, images: Tensor) -> Tokens:
        """The tokens of `images` (B, 3, H, W) after the final norm.

        Raises:
            UserError: the network is not a transformer.
        """
        raise UserError(f"{self.architecture.name} has no tokens; use its stages {', '.join(self.stages)}")

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Everything that two networks are compared by: the full output of each stage of `images` (B, 3, H, W)."""
        return self.pyramid(images)

    def width(self, targets: tuple[str, ...]) -> int:
        """The width D of what `pooled` returns for `targets`."""
        return sum(self.stages[stage].channels for stage in targets)

    @property
    def dim(self) -> int:
        """The width D of the global feature."""
        return self.width(self.architecture.targets(GLOBAL_FEATURE))

    def pooled(self, images: Tensor, targets: tuple[str, ...]) -> Tensor:
        """The feature that `targets` make up, (B, D).

        Args:
            images: (B, 3, H, W), preprocessed.
            targets: parts, as `Architecture.targets` returns them.
        """
        return self.pooled_all(images, [targets])[0]

    def pooled_all(self, images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """What `pooled` returns for each of the `targets`, from one pass.

        Here: the mean over positions of the stages' hypercolumn.
        """
        maps = self.pyramid(images)
        return [hypercolumn(maps, stages).mean(dim=(2, 3)) for stages in targets]

    def forward(self, images: Tensor) -> Tensor:
        """The global feature (B, D) of `images` (B, 3, H, W)."""
        return self.pooled(images, self.architecture.targets(GLOBAL_FEATURE))


def hypercolumn(maps: Mapping[str, Tensor], stages: tuple[str, ...]) -> Tensor:
    """Stack `stages` into one map (B, ΣC, h, w) on the grid of the last of them, by bilinear interpolation.

    Half-pixel centres, no antialiasing, as in CGH (https://arxiv.org/abs/2308.13392): a factor of two is exactly 2x2
    average pooling; a larger factor reads only the centre of each cell.
    """
    size = maps[stages[-1]].shape[-2:]
    resized = [
        maps[s] if maps[s].shape[-2:] == size else nn.functional.interpolate(maps[s], size, mode="bilinear")
        for s in stages
    ]
    return torch.cat(resized, dim=1)


def chosen(what: str, feature: str, known: Sequence[str]) -> tuple[str, ...]:
    """The parts of `feature` (joined by `+`), each once, in the order of `known`.

    Raises:
        UserError: one of them is not in `known`.
    """
    named = feature.split("+")
    for part in named:
        if part not in known:
            raise unknown(what, part, known)
    return tuple(part for part in known if part in named)
