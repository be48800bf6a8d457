"""The animal silhouettes of the PyPI package `animal-shape-mnist`, deduplicated and split by content."""

import gzip
import hashlib
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import Split

# The order of the labels 0..9 in the package.
CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
PACKAGE = "animal-shape-mnist==0.39"
SOURCE = f"PyPI {PACKAGE} (declared MIT; where its images come from is not stated)"
# SHA-256 of the two data files of that version: nothing else is ever unpickled.
SHA256 = {
    "animal_data_version_3.gz": "68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce",
    "animal_label_version_3.gz": "dec8dba7c469830989fbab46825021a08a38470753a512f27ada847eced97b57",
}
SIDE = 28  # pixels

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

# Two silhouettes whose masks overlap at least so much (intersection over union, one of them maybe mirrored or moved
# by a pixel) count as one drawing and stay in one split.
NEAR_DUPLICATE_IOU = 0.9
VAL_PER_CLASS = 200
SPLIT_SEED = 20201


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """`images` (N, 28, 28) uint8, white on black, and their `labels` (N,) int64, indices into `CLASSES`."""

    images: Pixels
    labels: Labels


def silhouettes(split: Split) -> Silhouettes:
    """The silhouettes of one split: no two equal, and none in train nearly equal to one in val.

    Raises:
        UserError: the package is absent, or its files are not those of the pinned version.
    """
    return _splits()[split]


@cache
def _splits() -> dict[Split, Silhouettes]:
    images, labels = _unique(*read())
    in_val = _choose_val(labels, near_duplicate_groups(images, labels))
    chosen: dict[Split, NDArray[np.bool_]] = {"train": ~in_val, "val": in_val}
    return {split: Silhouettes(_frozen(images[rows]), _frozen(labels[rows])) for split, rows in chosen.items()}


def read(folder: Path | None = None) -> tuple[Pixels, Labels]:
    """The package's arrays as they are, duplicates included: images (10000, 28, 28) uint8, labels (10000,) int64.

    Raises:
        UserError: as `silhouettes`; `folder` is where the two files are (default: the installed package).
    """
    folder = folder or _installed_folder()
    images, labels = (_read_array(folder / name) for name in SHA256)
    return images, labels.astype(np.int64)


def near_duplicate_groups(images: Pixels, labels: Labels) -> Labels:
    """(N,) group of each silhouette: those of a class that nearly coincide, directly or in a chain, share one."""
    groups = np.arange(len(images))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        for first, second in _near_pairs(images[members] > 127):
            old, new = groups[members[second]], groups[members[first]]
            groups[groups == old] = new
    return groups


def _near_pairs(masks: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """All pairs of (n, 28, 28) masks that overlap by at least `NEAR_DUPLICATE_IOU`, as indices."""
    areas = masks.sum((1, 2))
    order = np.argsort(areas, kind="stable")
    for rows in np.split(order, range(64, len(order), 64)):
        # Masks of areas further apart cannot overlap so much.
        smallest, largest = areas[rows[0]], areas[rows[-1]] / NEAR_DUPLICATE_IOU
        columns = order[(areas[order] >= smallest) & (areas[order] <= largest)]
        first, second = np.nonzero(_overlap(masks[rows], masks[columns]) >= NEAR_DUPLICATE_IOU)
        yield from zip(rows[first].tolist(), columns[second].tolist(), strict=True)


def _overlap(some: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(n, m) best intersection over union of masks (n, 28, 28) with (m, 28, 28), mirrored or moved by a pixel."""
    flat = some.reshape(len(some), -1).astype(np.float32)  # counts up to 784: exact in float32
    best = np.zeros((len(some), len(others)), dtype=np.float32)
    for candidates, down, right in itertools.product((others, others[:, :, ::-1]), range(3), range(3)):
        padded = np.pad(candidates, ((0, 0), (1, 1), (1, 1)))[:, down : down + SIDE, right : right + SIDE]
        moved = padded.reshape(len(others), -1).astype(np.float32)
        shared = flat @ moved.T
        np.maximum(best, shared / (flat.sum(1)[:, None] + moved.sum(1) - shared), out=best)
    return best


def _choose_val(labels: Labels, groups: Labels) -> NDArray[np.bool_]:
    """(N,) bool: `VAL_PER_CLASS` silhouettes of each class, whole groups, in a fixed random order."""
    draws = np.random.Generator(np.random.PCG64(SPLIT_SEED)).random(len(labels))
    in_val = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        room = VAL_PER_CLASS
        for index in members[np.argsort(draws[members], kind="stable")]:
            group = np.flatnonzero(groups == groups[index])
            if not in_val[index] and len(group) <= room:
                in_val[group] = True
                room -= len(group)
        assert room == 0, f"class {label} has no {VAL_PER_CLASS} silhouettes to hold out"
    return in_val


def _unique(images: Pixels, labels: Labels) -> tuple[Pixels, Labels]:
    """The first of each set of equal images, in the original order."""
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    keep = np.sort(first)
    return images[keep], labels[keep]


def _installed_folder() -> Path:
    spec = importlib.util.find_spec("animal_shape_mnist")  # a namespace package: finding it runs none of its code
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the dataset 'animals' needs the package {PACKAGE}; pip install {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "data" / "Animal Shape"


def _read_array(path: Path) -> NDArray[Any]:
    from cgh_bench.core.pickles import unpickle_numpy

    remedy = f"pip install --force-reinstall {PACKAGE}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {remedy}") from None
    if hashlib.sha256(content).hexdigest() != SHA256[path.name]:
        raise UserError(f"{path} is not the file of {PACKAGE} (its SHA-256 differs) and was not opened; {remedy}")
    array = unpickle_numpy(gzip.decompress(content), path)
    assert isinstance(array, np.ndarray)
    return array


def _frozen(array: NDArray[Scalar]) -> NDArray[Scalar]:
    array.flags.writeable = False
    return array
