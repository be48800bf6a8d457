"""What a network expects of its images; importing it loads no torch."""

import math
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
