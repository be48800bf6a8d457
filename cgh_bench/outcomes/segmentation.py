"""Pixels of each image by their true and predicted class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.outcomes.base import Floats, Images, Ints, Outcomes, per_cent


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation(Outcomes):
    """How many pixels of each class were taken for each class, image by image."""

    KIND = "segmentation"
    pixels: Ints
    """(M, 4): image, true class, predicted class, how many pixels; only those that occur."""

    @cached_property
    def areas(self) -> tuple[Floats, Floats, Floats]:
        """Pixels of each image and class (N, C): right, true, predicted."""
        image, true, given, count = self.pixels.T
        shape = len(self.images), len(self.classes)
        same = true == given
        found = []
        for rows, columns, weights in (
            (image[same], true[same], count[same]),
            (image, true, count),
            (image, given, count),
        ):
            flat = np.bincount(rows * shape[1] + columns, weights=weights, minlength=shape[0] * shape[1])
            found.append(flat.astype(np.float64).reshape(shape))
        right, true_area, given_area = found
        return right, true_area, given_area

    def measure(self, metric: str, counts: Ints) -> Floats:
        """See `Outcomes`."""
        right, true, given = (counts @ area for area in self.areas)
        by = self.measures[metric]
        if by == "aAcc":
            return per_cent(right.sum(axis=1), true.sum(axis=1))
        wholes = true + given - right if by == "mIoU" else true
        return np.nanmean(per_cent(right, wholes), axis=1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Outcomes`."""
        return {"pixels": self.pixels}

    def rows(self) -> Iterator[Sequence[Any]]:
        """One line per image, true class and predicted class."""
        yield ["image", "target", "predicted", "pixels"]
        for image, true, given, count in self.pixels:
            yield [self.images.ids[image], self.classes[true], self.classes[given], count]


def segmentation(
    images: Images,
    classes: Sequence[str],
    maps: Iterator[tuple[NDArray[Any], NDArray[Any]]],
    measures: Sequence[str] = ("mIoU", "mAcc", "aAcc"),
) -> Segmentation:
    """The outcomes of a segmentation.

    Args:
        images: which, in the order of `maps`.
        classes: C of them.
        maps: for each image the true and the predicted class of its pixels, of equal shape; pixels whose true class is
            not in 0 … C - 1 do not count.
        measures: which of mIoU, mAcc and aAcc the task reports.

    Raises:
        ValueError: a predicted map is of another size.
    """
    count, lines = len(classes), []
    for number, (true, given) in enumerate(maps):
        if true.shape != given.shape:
            raise ValueError(f"the map predicted for {images.ids[number]} is {given.shape}, not {true.shape}")
        counted = (true >= 0) & (true < count) & (given >= 0) & (given < count)
        pairs = true[counted].astype(np.int64) * count + given[counted]
        totals = np.bincount(pairs, minlength=1)
        there = np.flatnonzero(totals)
        lines.append(np.stack([np.full(len(there), number), there // count, there % count, totals[there]], axis=1))
    pixels = np.concatenate(lines) if lines else np.zeros((0, 4), np.int64)
    return Segmentation(
        images=images, classes=tuple(classes), measures={name: name for name in measures}, pixels=pixels
    )
