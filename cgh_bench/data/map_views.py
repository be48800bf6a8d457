"""Random views of images and of what is known of their pixels, as heads on maps are trained on; both change alike."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.data.segmented import VOID
from cgh_bench.data.windows import resized

if TYPE_CHECKING:
    from torch import Tensor

Truth = NDArray[Any]

SCALES = (0.5, 2.0)
"""What the short side is multiplied by, uniform."""
LARGEST_SHARE, TRIES = 0.75, 10
"""A crop of which one class has more is drawn again, so often at most (mmsegmentation's `cat_max_ratio`)."""
BRIGHTNESS, CONTRAST, HUE = 32, (0.5, 1.5), 0.1
"""The strengths of mmsegmentation's PhotoMetricDistortion: levels of 255, factors (also of the saturation), and the
share of the circle of hues (18 of OpenCV's 180); each with probability 1/2."""


def scaled_crop(image: "Tensor", truth: NDArray[np.uint8], short_side: int, size: int) -> "tuple[Tensor, Truth]":
    """A square of `size` pixels of the image at a random scale, mirrored or not, its colours distorted.

    What lies outside the image is black, and of no class.
    """
    import torch
    from torchvision.transforms.v2 import functional as F

    image, truth = resized(image, truth, max(1, round(short_side * float(torch.empty(1).uniform_(*SCALES)))))
    for _ in range(TRIES):
        top, left = (int(torch.randint(max(0, side - size) + 1, (1,))) for side in truth.shape)
        part = truth[top : top + size, left : left + size]
        known = part[part != VOID]
        if len(known) and np.bincount(known).max() < LARGEST_SHARE * len(known):
            break
    image = image[:, top : top + size, left : left + size]
    if float(torch.rand(1)) < 0.5:
        image, part = image.flip(2), part[:, ::-1]
    down, across = size - part.shape[0], size - part.shape[1]
    padded = F.pad(distorted(image), [0, 0, across, down])
    return padded, np.pad(part, ((0, down), (0, across)), constant_values=VOID)


def distorted(image: "Tensor") -> "Tensor":
    """The colours of an image (3, H, W) uint8 changed: brightness, contrast before or after saturation and hue.

    Saturation is blended with grey, where mmsegmentation scales it in HSV.
    """
    import torch
    from torchvision.transforms.v2 import functional as F

    def chance() -> bool:
        return float(torch.rand(1)) < 0.5

    def between(low: float, high: float) -> float:
        return float(torch.empty(1).uniform_(low, high))

    def contrast(given: "Tensor") -> "Tensor":
        return F.adjust_brightness(given, between(*CONTRAST)) if chance() else given  # there, a product without a mean

    if chance():
        image = (image.int() + round(between(-BRIGHTNESS, BRIGHTNESS))).clamp(0, 255).to(torch.uint8)
    first = chance()
    if first:
        image = contrast(image)
    if chance():
        image = F.adjust_saturation(image, between(*CONTRAST))
    if chance():
        image = F.adjust_hue(image, between(-HUE, HUE))
    return image if first else contrast(image)


TURNED, GAMMA, LIGHTNESS = 2.5, (0.9, 1.1), (0.75, 1.25)
"""The strengths of DINOv3's views for depth: degrees each way, the exponent and the factor of brightness; with
probability 1/2 (the first, the last two together)."""


def turned_crop(image: "Tensor", values: Truth, size: tuple[int, int]) -> "tuple[Tensor, Truth]":
    """A part of `size` (height, width) of the image and its depths: turned a little, mirrored or not, lighter or not.

    Depths that turn into the image from outside are 0, unknown. A smaller image is padded, and unknown there.
    """
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    known = torch.from_numpy(np.ascontiguousarray(values))[None]
    if float(torch.rand(1)) < 0.5:
        angle = float(torch.empty(1).uniform_(-TURNED, TURNED))
        image = F.rotate(image, angle, InterpolationMode.BILINEAR)
        known = F.rotate(known, angle, InterpolationMode.NEAREST)
    if float(torch.rand(1)) < 0.5:
        image, known = image.flip(2), known.flip(2)
    down, across = (max(0, side - there) for side, there in zip(size, image.shape[1:], strict=True))
    image, known = (F.pad(each, [0, 0, across, down]) for each in (image, known))
    top, left = (int(torch.randint(there - side + 1, (1,))) for side, there in zip(size, image.shape[1:], strict=True))
    part = np.s_[:, top : top + size[0], left : left + size[1]]
    image, known = image[part], known[part]
    if float(torch.rand(1)) < 0.5:
        gamma, factor = (float(torch.empty(1).uniform_(*bounds)) for bounds in (GAMMA, LIGHTNESS))
        image = ((image / 255) ** gamma * factor * 255).clamp(0, 255).to(torch.uint8)
    return image, known[0].numpy()
