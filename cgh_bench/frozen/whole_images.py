"""One vector for each image of any size: averaged over scales, with a generalised mean of its patches if asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.config import fingerprint
from cgh_bench.core.device import Precision
from cgh_bench.data.image_set import Images
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.extraction import Work
from cgh_bench.frozen.features import filled, plan_bank
from cgh_bench.networks.base import Backbone

GEM_POWER, GEM_LEAST = 4, 1e-6
"""facebookresearch/dino `eval_copy_detection.py`."""


@dataclass(frozen=True)
class WholeWork(Work):
    """The vector of an image."""

    scales: tuple[float, ...] = (1.0,)
    """Shares of the image's size, over which the vector is averaged; resized bilinearly, without antialiasing."""
    with_patches: bool = False
    """Whether the generalised mean of the last map's positions is appended to the global feature."""

    def widths(self, backbone: Backbone) -> list[int]:
        """See `Work`."""
        last = list(backbone.stages.values())[-1].channels if self.with_patches else 0
        return [backbone.dim + last]

    def compute(self, backbone: Any, inputs: Tensor) -> list[Tensor]:
        """See `Work`."""
        found = [self._vector(backbone, _scaled(inputs, scale)) for scale in self.scales]
        return [torch.stack(found).mean(dim=0)]

    def _vector(self, backbone: Backbone, inputs: Tensor) -> Tensor:
        """(B, D) of `inputs` (B, 3, H, W), without the pixels beyond the last whole patch."""
        multiple = backbone.architecture.size_multiple
        height, width = (side - side % multiple or multiple for side in inputs.shape[-2:])
        inputs = inputs[..., :height, :width]
        if not self.with_patches:
            return backbone(inputs)
        vector, maps = backbone.global_and_pyramid(inputs)
        patches = list(maps.values())[-1].clamp(min=GEM_LEAST)
        return torch.cat([vector, patches.pow(GEM_POWER).mean(dim=(2, 3)).pow(1 / GEM_POWER)], dim=1)


def _scaled(inputs: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return inputs
    return torch.nn.functional.interpolate(inputs, scale_factor=scale, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Whole:
    """How the vectors are made, and where they are kept."""

    checkpoint: Checkpoint
    transform: EvalTransform
    scales: tuple[float, ...]
    with_patches: bool
    cache: Path
    precision: Precision = "fp32"

    def work(self, images: Images) -> WholeWork:
        """The extraction from these images."""
        targets = (self.checkpoint.architecture.global_targets,)
        return WholeWork(
            self.checkpoint, images, self.transform, targets, self.precision, self.scales, self.with_patches
        )

    def extract(self, images: Images) -> NDArray[np.float32]:
        """(N, D), memory-mapped, from the cache where they were computed before; see `features.extract`."""
        return filled(self.work(images), self._folder(images))

    def plan(self, images: Images) -> str:
        """What `extract` would do, and how long that would take, in a line."""
        work, what = self.work(images), f"features of {images.name}: {len(images):,} images"
        return plan_bank(work, self._folder(images), what, work.widths(self.checkpoint.architecture.skeleton)[0])

    def _folder(self, images: Images) -> Path:
        key: Sequence[object] = [
            "whole", self.checkpoint.id, images.fingerprint, self.transform, self.scales, self.with_patches,
            self.precision,
        ]  # fmt: skip
        return self.cache / fingerprint(key)
