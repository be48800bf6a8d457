"""Several views of each image as one set of images: how it is evaluated, and random crops of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import ImageSet
from cgh_bench.data.transform import Crop, EvalTransform
from cgh_bench.frozen.crops import CROP, drawn_by

SEED = 0
"""The crops are part of the data: drawn once, so that every run finds their features in the cache."""


@dataclass(frozen=True, eq=False)
class Views(ImageSet):
    """View `v` of image `i` of `whole` (N) is number `v N + i`; view 0 is the image as `transform` leaves it."""

    whole: ImageSet
    transform: EvalTransform
    crop: Crop

    def image(self, index: int) -> Tensor:
        """One view, (3, H, W) uint8."""
        view, row = divmod(index, len(self.whole))
        image = self.whole.image(row)
        if view == 0:
            return self.transform.cut(image)
        with drawn_by(SEED, CROP, view, row):
            return self.crop.cut(image)

    def called(self, index: int) -> str:
        """The image, and which view."""
        view, row = divmod(index, len(self.whole))
        return f"{self.whole.called(row)}, view {view}"


def with_crops(images: ImageSet, transform: EvalTransform, crop: Crop, count: int) -> Views:
    """`images` (N) with `count` random crops of each, N (1 + count) in all.

    Raises:
        UserError: the crops are of another size than the image under `transform`.
    """
    side = tuple(transform.cut(images.image(0)).shape[1:])
    if side != (crop.size, crop.size):
        raise UserError(
            f"crops of {crop.size}x{crop.size} pixels beside images of {side[0]}x{side[1]}; set crop.size, or the "
            "transform, so that they are alike"
        )
    return Views(
        f"{images.name} in {1 + count} views",
        images.classes,
        np.tile(images.labels, 1 + count),
        fingerprint([images.fingerprint, transform, crop, count]),
        images,
        transform,
        crop,
        touched=images.touched,
    )


def in_all_views(rows: NDArray[np.int64], images: int, count: int) -> NDArray[np.int64]:
    """The numbers of all views of the `rows` (R,) of a set of so many `images`: (R (1 + count),), ascending."""
    return (images * np.arange(1 + count)[:, None] + rows).ravel()
