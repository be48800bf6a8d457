"""Images as a bad camera, a bad network or bad light would leave them, in five severities.

Eight of the corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261;
hendrycks/robustness `ImageNet-C/create_c/make_imagenet_c.py`), with its severities: those that need no further package.
Applied to the image as the transform leaves it; lengths are for 224 pixels and grow with the image's side.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.data.image_set import ImageSet
from cgh_bench.data.transform import EvalTransform

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from torch import Tensor

Unit = NDArray[np.float64]
"""(3, H, W) float64 in [0, 1], or beyond where it is clipped afterwards."""
Random = np.random.Generator

SIDE = 224


def _gaussian_noise(x: Unit, amount: float, random: Random) -> Unit:
    return x + random.normal(scale=amount, size=x.shape)


def _shot_noise(x: Unit, photons: float, random: Random) -> Unit:
    return random.poisson(x * photons) / photons


def _impulse_noise(x: Unit, share: float, random: Random) -> Unit:
    drawn = random.random(x.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, x))


def _gaussian_blur(x: Unit, sigma: float, random: Random) -> Unit:
    from scipy.ndimage import gaussian_filter

    scaled = sigma * min(x.shape[1:]) / SIDE
    return np.asarray(gaussian_filter(x, (0, scaled, scaled), mode="nearest"))


def _brightness(x: Unit, amount: float, random: Random) -> Unit:
    """Adds to the value of HSV; hue and saturation stay."""
    value = x.max(axis=0)
    raised = np.minimum(value + amount, 1)
    return np.where(value > 0, x * (raised / np.maximum(value, 1e-12)), raised)


def _contrast(x: Unit, factor: float, random: Random) -> Unit:
    mean: Unit = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * factor + mean


def _pixelate(x: Unit, factor: float, random: Random) -> Unit:
    from PIL.Image import Resampling

    image = _picture(x)
    small = image.resize([max(1, int(side * factor)) for side in image.size], Resampling.BOX)
    return _unit(small.resize(image.size, Resampling.BOX))


def _jpeg(x: Unit, quality: float, random: Random) -> Unit:
    from PIL import Image

    file = io.BytesIO()
    _picture(x).save(file, "JPEG", quality=int(quality))
    return _unit(Image.open(file))


def _picture(x: Unit) -> "Picture":
    from PIL import Image

    return Image.fromarray(_pixels(x).transpose(1, 2, 0))


def _unit(picture: "Picture") -> Unit:
    return np.asarray(picture).transpose(2, 0, 1) / 255


def _pixels(x: Unit) -> NDArray[np.uint8]:
    return np.round(np.clip(x, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Corruption:
    """What is done to an image, and how strongly at severity 1 to 5."""

    apply: Callable[[Unit, float, Random], Unit]
    amounts: tuple[float, float, float, float, float]


CORRUPTIONS = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": Corruption(_shot_noise, (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian_blur": Corruption(_gaussian_blur, (1, 2, 3, 4, 6)),
    "brightness": Corruption(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": Corruption(_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg_compression": Corruption(_jpeg, (25, 18, 15, 10, 7)),
}


@dataclass(frozen=True, eq=False)
class Corrupted(ImageSet):
    """The images of `whole`, each cut by `transform` and then corrupted; the same on every run."""

    whole: ImageSet
    transform: EvalTransform
    corruption: str
    severity: int

    @property
    def fingerprint(self) -> str:
        """The hash of the whole set and what is done to it."""
        amount = CORRUPTIONS[self.corruption].amounts[self.severity - 1]
        return fingerprint([self.whole.fingerprint, self.transform, self.corruption, amount])

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8."""
        import torch

        what = CORRUPTIONS[self.corruption]
        random = np.random.default_rng([zlib.crc32(self.corruption.encode()), self.severity, index])
        pixels = self.transform.cut(self.whole.image(index)).numpy()
        return torch.from_numpy(_pixels(what.apply(pixels / 255, what.amounts[self.severity - 1], random)))

    def called(self, index: int) -> str:
        """The name in the whole set."""
        return self.whole.called(index)


def corrupted(images: ImageSet, transform: EvalTransform, corruption: str, severity: int) -> Corrupted:
    """`images` under one corruption.

    Raises:
        UserError: no such corruption or severity.
    """
    if corruption not in CORRUPTIONS:
        raise unknown("corruption", corruption, CORRUPTIONS)
    if severity not in range(1, 6):
        raise UserError(f"severity {severity} must be from 1 to 5")
    name = f"{images.name} ({corruption} {severity})"
    return Corrupted(name, images.classes, images.labels, images, transform, corruption, severity)
