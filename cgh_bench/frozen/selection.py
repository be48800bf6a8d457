"""What hyper-parameters are chosen on: never the images that are reported; and that the two splits fit each other."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import ImageSet

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """What is searched, and how exactly; see `probe.fit`."""

    weight_decays: tuple[float, ...]
    iterations: int
    tolerance: float
    path: bool = later(False)
    """Whether each decay starts where the next stronger one ended; see `search.along`."""
    summed: bool = later(False)
    """Whether decays stand beside the sum of the cross-entropies of all rows instead of their mean."""
    standardised: bool = later(True)
    """Whether features are, by mean and deviation of the fitted rows."""
    intercept: bool = later(True)

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.tolerance <= 0:
            raise UserError(f"iterations {self.iterations} must be at least 1, tolerance {self.tolerance} above 0")


def require_one_label(images: ImageSet) -> None:
    """Refuse a multi-label set, or one of a single class, for tasks that tell classes apart."""
    if images.multi_label:
        raise UserError(f"{images.name} is multi-label; use a multi-label task: knn_multi_label, voc07_svm")
    if len(images.classes) < 2:
        raise UserError(f"{images.name} has one class ({images.classes[0]!r}); at least two are needed")


def require_different(train: ImageSet, val: ImageSet) -> None:
    """Refuse to report on the images that were learned from."""
    if train.fingerprint == val.fingerprint:
        raise UserError(f"{train.name} and {val.name} contain the same images; val must differ from train")


def require_learnable(train: ImageSet, val: ImageSet) -> None:
    """Refuse data that no softmax classifier fits.

    Raises:
        UserError: the set is multi-label or has one class, both hold the same images, or train lacks a class of val
            (unless its authors chose what is held out: a few hundred published images may lack one).
    """
    require_one_label(train)
    require_different(train, val)
    if train.held_out is not None:
        return
    unseen = np.setdiff1d(val.labels, train.labels)
    if len(unseen):
        raise UserError(
            f"{len(unseen)} classes of {val.name} have no image in {train.name} (first: {train.classes[unseen[0]]!r}); "
            "add some, or remove the classes"
        )


def require_shots(images: ImageSet, shots: int) -> None:
    """Refuse images that have fewer than `shots` of a class."""
    counts = np.bincount(images.labels, minlength=len(images.classes))
    if counts.min() < shots:
        name = images.classes[int(counts.argmin())]
        raise UserError(f"class {name!r} has {counts.min()} train images, but {shots} are needed; set fewer shots")


def hold_out(train: ImageSet, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Row numbers to fit and to hold out: those the dataset's authors set apart, else a `fraction` of every class.

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
        raise UserError(f"class {name!r} has {counts.min()} train images; at least two are needed to hold one out")
    held = math.ceil(fraction * len(train))
    if min(held, len(train) - held) < len(train.classes):
        raise UserError(
            f"held_out={fraction:g} of the {len(train)} images of {train.name} leaves fewer than one per class of "
            f"{len(train.classes)} classes on one side; use a value nearer to 0.5 (--set held_out=0.5 always works)"
        )
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    fitted_rows, held_rows = next(splitter.split(every, train.labels))
    return np.sort(fitted_rows), np.sort(held_rows)
