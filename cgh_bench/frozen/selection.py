"""What hyper-parameters are chosen on: never the images that are reported; and that the two splits fit each other."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import ImageSet

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """What is searched, and how exactly; see `probe.fit`."""

    weight_decays: tuple[float, ...]
    iterations: int
    tolerance: float

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.tolerance <= 0:
            raise UserError(f"iterations {self.iterations} must be at least 1, tolerance {self.tolerance} above 0")


def require_one_label(images: ImageSet) -> None:
    """Refuse a multi-label set, for tasks that know one class an image."""
    if images.multi_label:
        raise UserError(
            f"{images.name} shows several classes an image; evaluate it by a task for such data: voc07_knn, voc07_svm"
        )


def require_learnable(train: ImageSet, val: ImageSet) -> None:
    """Refuse data that no softmax classifier fits.

    Raises:
        UserError: several labels an image, or a class that val asks for and train has no image of.
    """
    require_one_label(train)
    unseen = np.setdiff1d(val.labels, train.labels)
    if len(unseen):
        name = train.classes[unseen[0]]
        raise UserError(f"class {name!r} is in {val.name} but has no image in {train.name}; {len(unseen)} such in all")


def hold_out(train: ImageSet, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Row numbers to fit and to hold out: those the data set's authors set apart, else a `fraction` of every class.

    Raises:
        UserError: a class has too few images to be in both, or `fraction` leaves less than an image of each class.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    every = np.arange(len(train))
    if train.held_out is not None:
        return np.setdiff1d(every, train.held_out), np.sort(train.held_out)
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if counts.min() < 2:
        name = train.classes[int(counts.argmin())]
        raise UserError(f"class {name!r} has {counts.min()} train images; two are needed, one of them to hold out")
    held = math.ceil(fraction * len(train))
    if min(held, len(train) - held) < len(train.classes):
        raise UserError(
            f"held_out={fraction:g} of the {len(train)} images of {train.name} leaves less than one of each of "
            f"{len(train.classes)} classes on one side; take --set held_out=N with N from "
            f"{len(train.classes) / len(train):.2g} to {1 - len(train.classes) / len(train):.2g}"
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    fitted_rows, held_rows = next(splitter.split(every, train.labels))
    return np.sort(fitted_rows), np.sort(held_rows)
