"""Overlapping square windows that cover images of any size: what a network of one input size sees of them."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data.segmented import SegmentedImages

if TYPE_CHECKING:
    from torch import Tensor

Maps = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of `size` pixels a side, `stride` apart, of images whose short side is resized to `short_side`.

    The last window of a row or column ends with the image, so that it overlaps more (mmsegmentation's `slide`).
    """

    whole: SegmentedImages
    size: int
    short_side: int
    stride: int
    in_memory: ClassVar = False

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.size <= self.short_side:
            raise UserError(
                f"stride {self.stride} must be from 1 to size {self.size}, and size at most short_side "
                f"{self.short_side}, so that windows cover the image without gaps"
            )

    @property
    def name(self) -> str:
        """Dataset and split, and that they are windows."""
        return f"windows of {self.whole.name}"

    @property
    def fingerprint(self) -> str:
        """The hash of the images and of how they are cut."""
        return fingerprint([self.whole.fingerprint, self.size, self.short_side, self.stride])

    @cached_property
    def grids(self) -> list[list[tuple[int, int]]]:
        """The top and left of each window, image by image; read from the heads of the files of maps."""
        found = []
        for _, path in self.whole.paths:
            with Image.open(path) as file:
                height, width = resized_to((file.height, file.width), self.short_side)
            tops, lefts = (starts(length, self.size, self.stride) for length in (height, width))
            found.append([(top, left) for top in tops for left in lefts])
        return found

    @cached_property
    def places(self) -> list[tuple[int, int, int]]:
        """Image, top and left of each window."""
        return [(image, *corner) for image, corners in enumerate(self.grids) for corner in corners]

    def of_image(self, index: int) -> range:
        """The numbers of the windows of an image."""
        return range(self._ends[index], self._ends[index + 1])

    @cached_property
    def _ends(self) -> list[int]:
        return [0, *accumulate(map(len, self.grids))]

    def __len__(self) -> int:
        return len(self.places)

    def called(self, index: int) -> str:
        """The file of the image of a window."""
        return self.whole.called(self.places[index][0])

    def image(self, index: int) -> "Tensor":
        """A window of an image, (3, size, size) uint8."""
        return self.both(index)[0]

    def both(self, index: int) -> "tuple[Tensor, Maps]":
        """A window, (3, size, size) uint8, and its map, (size, size)."""
        number, top, left = self.places[index]
        image, truth = resized(*self.whole.both(number), self.short_side)
        part = np.s_[top : top + self.size, left : left + self.size]
        return image[:, *part].contiguous(), truth[part]


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows of a `size` begin on a side of this `length`, at least as long."""
    count = -(-(length - size) // stride) + 1
    return [min(number * stride, length - size) for number in range(count)]


def resized_to(shape: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Height and width where the shorter becomes `short_side`; the longer is rounded down, as by torchvision."""
    short = min(shape)
    height, width = (short_side if side == short else int(short_side * side / short) for side in shape)
    return height, width


def resized(image: "Tensor", truth: Maps, short_side: int) -> "tuple[Tensor, Maps]":
    """An image (3, H, W), bilinear with antialiasing, and its map (H, W), each pixel the nearest."""
    import torch
    from torchvision.transforms.v2 import functional as F

    size = resized_to((truth.shape[0], truth.shape[1]), short_side)
    maps = torch.from_numpy(truth)[None, None]
    nearest = torch.nn.functional.interpolate(maps, size, mode="nearest-exact")[0, 0].numpy()
    return F.resize(image, list(size), antialias=True), nearest
