"""What a network expects of its images, and the usual kinds by name; importing it loads no torch."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cgh_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ChannelOrder = Literal["RGB", "BGR"]


@dataclass(frozen=True)
class Preprocessing:
    """What the first convolution expects: `(pixel / 255 * input_range - mean) / std`, channels in `channel_order`."""

    channel_order: ChannelOrder = "RGB"
    input_range: float = 1.0
    """The value of a white pixel before mean and std: 1 (torchvision) or 255 (caffe)."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        numbers = (self.input_range, *self.mean, *self.std)
        sound = len(self.mean) == len(self.std) == 3 and all(isinstance(number, int | float) for number in numbers)
        if not sound or self.channel_order not in ("RGB", "BGR") or not all(map(math.isfinite, numbers)):
            raise UserError(
                f"{self} is not a valid preprocessing; expected channel order RGB or BGR, an input_range, and three "
                "numbers each for mean and std"
            )
        if min(self.input_range, *self.std) <= 0:
            raise UserError(f"{self}: input_range and std must be above zero")

    def __call__(self, pixels: "Tensor") -> "Tensor":
        """Turn RGB `pixels` (…, 3, H, W) in [0, 1] into the network's input of the same shape."""
        pixels = pixels if self.channel_order == "RGB" else pixels.flip(-3)
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels * self.input_range).sub_(mean).div_(std)


IMAGES = tuple(field.name for field in dataclasses.fields(Preprocessing))
"""The properties of every checkpoint that its preprocessing consists of."""
MSRA = Preprocessing("BGR", 255.0, (103.530, 116.280, 123.675), (1.0, 1.0, 1.0))
"""Detectron's and detectron2's default, for the caffe networks of MSRA: PIXEL_MEAN, PIXEL_STD, INPUT.FORMAT of
facebookresearch/detectron2@v0.6 detectron2/config/defaults.py."""
X101 = Preprocessing("BGR", 255.0, (103.530, 116.280, 123.675), (57.375, 57.120, 58.395))
"""The preprocessing of X-101-32x8d.pkl; source: facebookresearch/detectron2@v0.6
configs/COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml."""
INCEPTION = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PREPROCESSINGS = {
    "imagenet": Preprocessing(),
    "inception": INCEPTION,
    "clip": Preprocessing(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    "caffe": MSRA,
    "none": Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
}
"""By name: pixels in [0, 1], minus mean, over std. `none` leaves them in [0, 1]."""


def in_pixels(order: ChannelOrder, mean: Sequence[float], std: Sequence[float]) -> Preprocessing:
    """Preprocessing from values for pixels of 0 to 255; those of torchvision give exactly its own."""
    if all(math.isclose(value, 1.0) for value in std):
        return Preprocessing(order, 255.0, triple(mean), triple(std))
    means, stds = (tuple(value / 255 for value in values) for values in (mean, std))
    for known in (Preprocessing(), INCEPTION):
        if order == known.channel_order and all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip((*means, *stds), (*known.mean, *known.std), strict=True)
        ):
            return known
    if (order, tuple(mean), tuple(std)) == (X101.channel_order, X101.mean, X101.std):
        return X101
    return Preprocessing(order, 1.0, triple(means), triple(stds))


def triple(values: Sequence[float]) -> tuple[float, float, float]:
    """The numbers of the three channels."""
    first, second, third = (float(value) for value in values)
    return first, second, third
