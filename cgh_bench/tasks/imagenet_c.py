"""ImageNet-C by the linear probe of clean ImageNet: the mean corruption error, relative to AlexNet's.

Source: Hendrycks and Dietterich, ICLR 2019 (https://arxiv.org/abs/1903.12261, 4.1); hendrycks/robustness. The images
are stored at 224 pixels and are not resized again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError, unknown
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.corruptions import Corruptions

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's error, the mean over the five severities: hendrycks/robustness `ImageNet-C/test.py`."""
EXTRA = {"speckle_noise": 0.845388, "gaussian_blur": 0.787108, "spatter": 0.717512, "saturate": 0.658248}
"""That of the four extra corruptions: facebookresearch/dinov3@6876159 `dinov3/eval/metrics/imagenet_c.py`."""


@dataclass(frozen=True)
class ImageNetC(Corruptions):
    """Classify the images of ImageNet-C by a probe fitted to clean images."""

    METRICS: ClassVar = (Metric("mce", higher_is_better=False), Metric("top1_corrupted"), Metric("top1"))

    ERRORS: ClassVar[Mapping[str, float]] = ALEXNET

    data: str = "imagenet1k"
    corruptions: tuple[str, ...] = tuple(ALEXNET)

    def __post_init__(self) -> None:
        super().__post_init__()
        if odd := [name for name in self.corruptions if name not in self.ERRORS]:
            raise unknown("corruption of ImageNet-C", odd[0], self.ERRORS)
        if self.severities != (1, 2, 3, 4, 5):
            raise UserError(f"severities {self.severities}: mCE needs all five")

    def damaged(self, images: ImageSet, corruption: str, severity: int) -> ImageSet:
        """The stored images of one corruption and severity.

        Raises:
            UserError: they are absent, or of other classes than the probe's.
        """
        from cgh_bench.data import data_root
        from cgh_bench.data.imagenet_shifts import imagenet_c

        found = imagenet_c(data_root(), corruption, severity)
        if found.classes != images.classes:
            raise UserError(f"{found.name} has {len(found.classes)} classes, {images.name} {len(images.classes)}")
        return found

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images of the probe.

        The first metric is the mean of the `corruption_errors`.
        """
        top1, grid = self.accuracies(checkpoint, data, folders, seed)
        mce = float(corruption_errors(self.corruptions, grid).mean())
        return {self.METRICS[0].name: mce, "top1_corrupted": float(grid.mean()), "top1": top1}


def corruption_errors(corruptions: tuple[str, ...], top1: NDArray[np.float64]) -> NDArray[np.float64]:
    """The error of each corruption in per cent of AlexNet's, (C,), by its top-1 at each severity, (C, S) per cent."""
    of_alexnet = np.array([{**ALEXNET, **EXTRA}[name] for name in corruptions])
    return (100 - top1.mean(axis=1)) / of_alexnet


@dataclass(frozen=True)
class ImageNetC19(ImageNetC):
    """Classify the images of ImageNet-C and its four extra corruptions by a probe fitted to clean images.

    The mean over 19 is another number than the usual one over 15; DINOv3 averages all that are there.
    """

    METRICS: ClassVar = (Metric("mce_19", higher_is_better=False), *ImageNetC.METRICS[1:])
    ERRORS: ClassVar[Mapping[str, float]] = ALEXNET | EXTRA

    corruptions: tuple[str, ...] = tuple(ALEXNET | EXTRA)


TASKS = {"imagenet_c": ImageNetC(), "imagenet_c_19": ImageNetC19()}
