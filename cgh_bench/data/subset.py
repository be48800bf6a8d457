"""Some images of a set as a set of their own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.data.image_set import ColourImages, GreyImages, ImageSet, content_fingerprint


@dataclass(frozen=True, eq=False)
class Subset(ImageSet):
    """The images `rows` (n,) of `whole`."""

    whole: ImageSet
    rows: NDArray[np.int64]

    def image(self, index: int) -> Tensor:
        """As of the whole set."""
        return self.whole.image(int(self.rows[index]))

    def called(self, index: int) -> str:
        """As in the whole set."""
        return self.whole.called(int(self.rows[index]))


def subset(images: ImageSet, rows: NDArray[np.int64], what: str) -> ImageSet:
    """The images `rows` (n,) of `images`; `what` says in the name which they are. What is in memory stays there."""
    name, labels = f"{images.name} ({what})", images.labels[rows]
    fingerprint = content_fingerprint((images.fingerprint,), rows)
    if isinstance(images, GreyImages | ColourImages):
        return type(images)(name, images.classes, labels, fingerprint, images.pixels[rows], touched=images.touched)
    return Subset(name, images.classes, labels, fingerprint, images, rows, touched=images.touched)
