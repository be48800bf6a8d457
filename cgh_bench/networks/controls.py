"""Statistics of an image, behind the contract of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cgh_bench.networks.base import Backbone, Stage

if TYPE_CHECKING:
    from cgh_bench.backbones.controls import Control

SIDE = 16
"""The number of rows and columns that raw pixels are averaged to."""


class Statistics(Backbone):
    """Statistics of the image itself; its only map is the image."""

    def __init__(self, architecture: Control) -> None:
        super().__init__()
        self.architecture = architecture
        self.stages = {architecture.name: Stage(3, 1)}

    def width(self, targets: tuple[str, ...]) -> int:
        """See `Backbone.width`."""
        return 3 * SIDE * SIDE if self.architecture.name == "pixels" else 6

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
