"""What every labelled set of images looks like to the rest of the package, and the entries of the catalogue."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.transform import EvalTransform

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "val"]


@dataclass(frozen=True, eq=False)
class ImageSet(ABC):
    """`N` labelled images, read one at a time.

    `name` is data set and split ("animals/train"); `fingerprint` is sixteen hex digits that change when the images,
    the labels or the classes do (`results.jsonl` records it).
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    """(N,) indices into `classes`; of a multi-label set (N, C): 1 present, 0 absent, -1 not counted."""
    fingerprint: str
    held_out: NDArray[np.int64] | None = field(default=None, kw_only=True)
    """Rows of a train split that the set's authors set apart to choose hyper-parameters on."""
    touched: str = field(default="", kw_only=True)
    """Changes when a file is written again, even with as many bytes; for caches, for it differs between copies."""

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise UserError(f"{self.name} has no image; at least one is needed")
        low, high = (-1, 1) if self.multi_label else (0, len(self.classes) - 1)
        if not low <= self.labels.min() <= self.labels.max() <= high:
            raise UserError(
                f"{self.name} has labels from {self.labels.min()} to {self.labels.max()}; {low} to {high} are accepted"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        """Whether an image can show several classes."""
        return self.labels.ndim == 2

    def called(self, index: int) -> str:
        """What a message calls image `index`."""
        return f"number {index}"

    @abstractmethod
    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB.

        Raises:
            UserError: the file behind it cannot be read; the message names the file.
        """


@dataclass(frozen=True, eq=False)
class GreyImages(ImageSet):
    """Images held in memory as one channel: `pixels` is (N, H, W) uint8, repeated to RGB when read."""

    pixels: NDArray[np.uint8]

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8, its three channels equal."""
        import torch

        return torch.from_numpy(np.repeat(self.pixels[index][None], 3, axis=0))


@dataclass(frozen=True, eq=False)
class ColourImages(ImageSet):
    """Images held in memory in colour: `pixels` is (N, 3, H, W) uint8."""

    pixels: NDArray[np.uint8]

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB."""
        import torch

        return torch.from_numpy(self.pixels[index].copy())


@dataclass(frozen=True, eq=False)
class Subset(ImageSet):
    """The images `rows` (n,) of `whole`."""

    whole: ImageSet
    rows: NDArray[np.int64]

    def image(self, index: int) -> "Tensor":
        """As in the whole set."""
        return self.whole.image(int(self.rows[index]))

    def called(self, index: int) -> str:
        """As in the whole set."""
        return self.whole.called(int(self.rows[index]))


def subset(images: ImageSet, rows: NDArray[np.int64], what: str) -> ImageSet:
    """The images `rows` (n,) of `images`; `what` says in the name which they are. What is in memory stays there."""
    name, labels = f"{images.name} ({what})", images.labels[rows]
    content = content_fingerprint((images.fingerprint,), rows)
    if isinstance(images, GreyImages | ColourImages):
        return type(images)(name, images.classes, labels, content, images.pixels[rows], touched=images.touched)
    return Subset(name, images.classes, labels, content, images, rows, touched=images.touched)


@dataclass(frozen=True, eq=False)
class DataPair:
    """What is learned from, and what is reported: the two splits of a dataset, of the same classes."""

    name: str
    train: ImageSet
    val: ImageSet

    def __post_init__(self) -> None:
        if self.train.classes != self.val.classes:
            odd = sorted(set(self.train.classes) ^ set(self.val.classes))
            raise UserError(f"train and val of {self.name} have different classes; only in one: {', '.join(odd[:5])}")

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the train and the val images together."""
        return fingerprint([self.train.fingerprint, self.val.fingerprint])


def workers(images: ImageSet) -> int:
    """How many processes a loader of `images` has: they pay where files are decoded, not for images in memory."""
    if isinstance(images, GreyImages | ColourImages):
        return 0
    return min(8, max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def content_fingerprint(classes: tuple[str, ...], *arrays: NDArray[Any]) -> str:
    """Sixteen hex digits of the class names and of the shape, type and values of each array."""
    digest = hashlib.sha256("\0".join(classes).encode())
    for array in arrays:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class LabelledImages:
    """A catalogue entry for classification, kNN and pretraining; `load(split)` gives the images."""

    description: str
    source: str
    load: Callable[[Split], ImageSet]
    kind: Literal["classification"] = "classification"


@dataclass(frozen=True)
class FetchedImages:
    """A catalogue entry for classification whose files the user fetches: nothing is ever downloaded."""

    description: str
    source: str
    """Who published it, and who its split, transform and metric are taken from."""
    folder: str
    """Where its files lie, below `$CGH_DATA`."""
    needs: tuple[str, ...]
    """Files and folders that must be there, below `folder`."""
    how: str
    """What the user does to get them there."""
    counts: tuple[int, int]
    """Images for training and for the report, as published; 0: not checked."""
    read: Callable[[Path, Split], ImageSet]
    """The images of a split of the set in this folder."""
    transform: EvalTransform
    metric: Literal["top1", "class_balanced", "mAP"]
    """What the literature reports of it: accuracy over images, its mean over classes, mean average precision."""
    kind: Literal["classification"] = "classification"

    def load(self, root: Path, split: Split) -> ImageSet:
        """The images of one split below `root`.

        Raises:
            UserError: absent, incomplete or unreadable: what, where it is expected, how to get it.
        """
        folder = root / self.folder
        absent = [path for path in self.needs if not (folder / path).exists()]
        if absent:
            raise UserError(f"{', '.join(absent)} expected in {folder} ($CGH_DATA is {root}); to get it: {self.how}")
        try:
            images = self.read(folder, split)
        except UserError:
            raise
        except (OSError, ValueError, LookupError, RuntimeError) as error:
            raise UserError(f"{folder} is damaged ({' '.join(str(error).split())}); to get it: {self.how}") from None
        published = self.counts[split == "val"]
        if published not in (0, len(images)) and not (folder / SUBSET).exists():
            raise UserError(
                f"{images.name} in {folder} has {len(images)} images, {published} were published (if fewer are meant, "
                f"make an empty file {folder / SUBSET}); to get it: {self.how}"
            )
        return images


@dataclass(frozen=True)
class DetectionScenes:
    """A catalogue entry for detection and segmentation; `write(folder)` makes (or finds) the files and returns it."""

    description: str
    source: str
    write: Callable[[Path], Path]
    kind: Literal["detection"] = "detection"
