"""The animal silhouettes of the PyPI package `animal-shape-mnist`, deduplicated and split by content."""

import gzip
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import Split

# The order of the labels 0..9 in the package.
CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
PACKAGE = "animal-shape-mnist==0.39"
SOURCE = f"PyPI {PACKAGE} (declared MIT; where its images come from is not stated)"
# SHA-256 of the two data files of that version: nothing else is read.
SHA256 = {
    "animal_data_version_3.gz": "68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce",
    "animal_label_version_3.gz": "dec8dba7c469830989fbab46825021a08a38470753a512f27ada847eced97b57",
}
SIDE = 28  # pixels
AFTER_VALUES = 14
"""Each file is the pickle of one array. As its content is known, so is where the values are: nothing is unpickled."""

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

SPLIT_FILE = Path(__file__).with_name("silhouette_split.txt")
SPLITS: dict[Split, str] = {"train": "t", "val": "v"}
"""The mark of each split in `silhouette_split.txt`, one character for each image; `-` is a copy of an earlier image.

`tools/silhouette_split.py` wrote it: nothing in train is equal or nearly equal to anything in val.
"""


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
    images, labels = read()
    marks = np.array(list("".join(SPLIT_FILE.read_text(encoding="ascii").split())))
    rows = {split: marks == mark for split, mark in SPLITS.items()}
    return {split: Silhouettes(_frozen(images[chosen]), _frozen(labels[chosen])) for split, chosen in rows.items()}


def read(folder: Path | None = None) -> tuple[Pixels, Labels]:
    """The package's arrays as they are, duplicates included: images (10000, 28, 28) uint8, labels (10000,) int64.

    Raises:
        UserError: as `silhouettes`; `folder` is where the two files are (default: the installed package).
    """
    folder = folder or _installed_folder()
    images, labels = (_content(folder / name)[:-AFTER_VALUES] for name in SHA256)
    pixels = np.frombuffer(images[-10_000 * SIDE * SIDE :], np.uint8).reshape(-1, SIDE, SIDE)
    return pixels, np.frombuffer(labels[-10_000 * 8 :], "<i8").astype(np.int64)


def _installed_folder() -> Path:
    spec = importlib.util.find_spec("animal_shape_mnist")  # a namespace package: finding it runs none of its code
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the dataset 'animals' needs the package {PACKAGE}; pip install {PACKAGE}")
    return Path(spec.submodule_search_locations[0]) / "data" / "Animal Shape"


def _content(path: Path) -> bytes:
    remedy = f"pip install --force-reinstall {PACKAGE}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); {remedy}") from None
    if hashlib.sha256(content).hexdigest() != SHA256[path.name]:
        raise UserError(f"{path} is not the file of {PACKAGE} (its SHA-256 differs) and was not opened; {remedy}")
    return gzip.decompress(content)


def _frozen(array: NDArray[Scalar]) -> NDArray[Scalar]:
    array.flags.writeable = False
    return array
