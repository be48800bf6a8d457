"""Controls without a network: what any backbone must beat. They have no weights, and are evaluated like the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cgh_bench.backbones.base import GLOBAL_FEATURE, Architecture, Backbone, Stage
from cgh_bench.core.errors import unknown

SIDE = 16
"""Raw pixels are averaged to so many rows and columns."""
WIDTHS = {"pixels": 3 * SIDE * SIDE, "channels": 6}


@dataclass(frozen=True)
class Control(Architecture):
    """`pixels`: the image, averaged to 16 x 16; `channels`: mean and deviation of each channel."""

    name: str

    @classmethod
    def names(cls) -> Iterable[str]:
        """See `Architecture`."""
        return WIDTHS

    @classmethod
    def named(cls, name: str) -> Self | None:
        """See `Architecture`."""
        return cls(name) if name in WIDTHS else None

    def build(self) -> Backbone:
        """See `Architecture`."""
        return Statistics(self)

    def targets(self, feature: str) -> tuple[str, ...]:
        """There is one feature."""
        if feature not in (GLOBAL_FEATURE, self.name):
            raise unknown(f"feature of {self.name}", feature, [GLOBAL_FEATURE, self.name])
        return (self.name,)


class Statistics(Backbone):
    """Statistics of the image itself; its only map is the image."""

    def __init__(self, architecture: Control) -> None:
        super().__init__()
        self.architecture = architecture
        self.stages = {architecture.name: Stage(3, 1)}

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        return sum(WIDTHS[name] for name in targets)

    def global_and_pyramid(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Backbone.global_and_pyramid`."""
        return self._feature(images), {self.architecture.name: images}

    def pooled_all(self, images: Tensor, targets: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """See `Backbone.pooled_all`."""
        return [self._feature(images) for _ in targets]

    def _feature(self, images: Tensor) -> Tensor:
        if self.architecture.name == "pixels":
            return adaptive_avg_pool2d(images, SIDE).flatten(1)
        flat = images.flatten(2)
        return torch.cat([flat.mean(dim=2), flat.std(dim=2)], dim=1)


FAMILIES = {"control": Control}
