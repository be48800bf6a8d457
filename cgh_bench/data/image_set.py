"""What every labelled set of images looks like to the rest of the package, and the entries of the catalogue."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Split = Literal["train", "val"]


@dataclass(frozen=True, eq=False)
class ImageSet(ABC):
    """`N` labelled images, read one at a time.

    `name` is data set and split ("animals/train"); `labels` is (N,) int64, indices into `classes`; `fingerprint` is
    sixteen hex digits that change when the images, the labels or the classes do (`results.jsonl` records it).
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> torch.Tensor:
        """Image `index` as (3, H, W) uint8 RGB.

        Raises:
            UserError: the file behind it cannot be read; the message names the file.
        """


@dataclass(frozen=True, eq=False)
class GreyImages(ImageSet):
    """Images held in memory as one channel: `pixels` is (N, H, W) uint8, repeated to RGB when read."""

    pixels: NDArray[np.uint8]

    def image(self, index: int) -> torch.Tensor:
        """Image `index` as (3, H, W) uint8, its three channels equal."""
        return torch.from_numpy(np.repeat(self.pixels[index][None], 3, axis=0))


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
class DetectionScenes:
    """A catalogue entry for detection and segmentation; `write(folder)` makes (or finds) the files and returns it."""

    description: str
    source: str
    write: Callable[[Path], Path]
    kind: Literal["detection"] = "detection"
