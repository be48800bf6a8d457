"""Random views of images: every number is a field, every draw a function of the seed; `augmentation` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.pretrain.ranges import Count, Fraction, NotNegative, check_ranges

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cgh_bench.pretrain.augmentation import Cut


@dataclass(frozen=True)
class Augment:
    """One view, made in this order: crop, flip and rotation; colour jitter; grey; blur; solarisation."""

    size: Count
    """Pixels per side of the square view."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Range of the crop's share of the image's area."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's width over its height; the logarithm is uniform."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip."""
    rotation_degrees: NotNegative = 0.0
    """Largest rotation to either side; pixels from outside the image repeat its edge."""
    jitter: Fraction = 0.0
    """Probability of the four colour changes below, which come in random order."""
    brightness: NotNegative = 0.0
    """The factor is uniform in `1 ± brightness`; contrast and saturation likewise."""
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: NotNegative = 0.0
    """The shift is uniform in `± hue`, in turns of the colour circle."""
    grey: Fraction = 0.0
    """Probability of a view without colour."""
    blur: Fraction = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the Gaussian's standard deviation, in pixels of the view. The Gaussian is sampled at whole pixels, as in
    torchvision; Pillow's three box filters blur more below 0.5 (at 0.3 their spread is 0.29, here 0.09)."""
    solarize: Fraction = later(0.0)  # noqa: RUF009 (it makes a field)
    """Probability that values above one half are inverted."""
    interpolation: Literal["bilinear", "bicubic"] = later("bilinear")
    """How a crop is resized."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"{name}={low},{high} must be two positive numbers, the smaller first")
        if self.crop_area[1] > 1:
            raise UserError(f"crop_area {self.crop_area} must be at most 1")

    def __call__(self, images: Sequence[Tensor], uniforms: Tensor) -> Tensor:
        """The views (B, 3, size, size) float32 in [0, 1] of B `images` (3, H, W) uint8.

        All randomness comes from `uniforms` (B, `augmentation.DRAWS`) in [0, 1).
        """
        from cgh_bench.pretrain.augmentation import augmented

        return augmented(self, images, uniforms)


@dataclass(frozen=True)
class Views:
    """The views of each image, in the order in which the method expects them."""

    augments: tuple[Augment, ...] = ()

    def __call__(
        self, images: Sequence[Tensor], generators: Sequence[torch.Generator], rows: slice, finish: bool = True
    ) -> list[Tensor] | list[Cut]:
        """All views of the images that this process has of a global batch.

        Args:
            images: this process's images, each (3, H, W) uint8.
            generators: one per augmentation.
            rows: their place in the global batch; each process makes all its draws, so that views do not depend on the
                number of processes.
            finish: or only cut them.
        """
        import torch

        from cgh_bench.pretrain.augmentation import DRAWS, FIRST_DRAWS, cut

        counts = (FIRST_DRAWS, DRAWS - FIRST_DRAWS)
        draws = [
            torch.cat([torch.rand(rows.stop, n, generator=generator)[rows] for n in counts], dim=1)
            for generator in generators
        ]
        made = zip(self.augments, draws, strict=True)
        return [each(images, u) for each, u in made] if finish else [cut(each, images, u) for each, u in made]
