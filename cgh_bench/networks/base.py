"""The interface of a backbone, central to the project: code that uses one never checks its family.

A `Backbone` is a network without its classifier; an `Architecture` builds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    from cgh_bench.backbones.base import Architecture


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
"""Activations by the names in `backbones.base.ACTIVATIONS`."""


_IN_A_BLOCK = re.compile(r"\b(?:layer|block|stage)s?\.?\d")
"""Where the numbers of stage and block begin in a parameter's name: `blocks.3.`, `layer2.0.`, `stages.1.blocks.0.`."""


@dataclass(frozen=True)
class Stage:
    """One feature map of a backbone's pyramid."""

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


class Backbone(nn.Module):
    """A network without its classifier.

    Attributes:
        architecture: the architecture that was built.
        stages: the feature maps that `pyramid` returns, in network order.
    """

    architecture: Architecture
    stages: Mapping[str, Stage]

    def pyramid(self, images: Tensor) -> dict[str, Tensor]:
        """The feature map of every stage.

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
        raise UserError(f"{self.architecture.name} has no tokens; use its stages: {', '.join(self.stages)}")

    def outputs(self, images: Tensor) -> dict[str, Tensor]:
        """The full output of each stage for `images` (B, 3, H, W), used to compare two networks."""
        return self.pyramid(images)

    def layers(self, by_stage: bool = False) -> dict[str, int]:
        """The layer of each parameter, {name: number}, for layer-wise learning rates.

        Layer 0 is the stem with its position embeddings; then come the blocks, or with `by_stage` the stages, in
        network order. A downsampling layer belongs to the block after it, the final norm to the last one.
        """
        depth = 1 if by_stage or len({stage.stride for stage in self.stages.values()}) == 1 else 2
        numbers: dict[tuple[str, ...], int] = {}
        found = {}
        for name, _ in self.named_parameters():
            if place := _IN_A_BLOCK.search(name):
                block = (*re.findall(r"\d+", name[place.start() :].partition("downsampl")[0]), "0")[:depth]
                found[name] = numbers.setdefault(block, len(numbers) + 1)
            else:
                found[name] = len(numbers)
        return found

    def width(self, targets: tuple[str, ...]) -> int:
        """The width D of the feature that `pooled` returns for `targets`."""
        return sum(self.stages[stage].channels for stage in targets)

    @property
    def dim(self) -> int:
        """The width D of the global feature."""
        return self.width(self.architecture.global_targets)

    def pooled(self, images: Tensor, targets: tuple[str, ...]) -> Tensor:
        """The feature (B, D) composed of `targets`.

        Args:
            images: (B, 3, H, W), preprocessed.
            targets: parts, as `Architecture.targets` returns them.
        """
        return self.pooled_all(images, [targets])[0]

    def pooled_all(self, images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """The output of `pooled` for each of the `targets`, from one pass.

        By default, the mean over positions of the stages' hypercolumn.
        """
        maps = self.pyramid(images)
        return [hypercolumn(maps, stages).mean(dim=(2, 3)) for stages in targets]

    def forward(self, images: Tensor) -> Tensor:
        """The global feature (B, D) of `images` (B, 3, H, W)."""
        return self.pooled(images, self.architecture.global_targets)


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


@contextmanager
def without_memory() -> Iterator[None]:
    """Build networks on the meta device, without initialising their tensors, which is fast."""
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
