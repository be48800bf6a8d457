"""What every kind of outcome is: answers for named images, the numbers that they determine, and their file."""

import csv
import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import printable
from cgh_bench.core.files import replacing
from cgh_bench.data.image_set import ImageSet

FILE = "outcomes.npz"
VERSION = 1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Images:
    """Which images were answered for, in order."""

    name: str
    """Dataset and split."""
    ids: tuple[str, ...]
    order: str
    """Sixteen hex digits of the images and their order: two runs with the same can be compared image by image."""

    def __len__(self) -> int:
        return len(self.ids)


def images_of(images: ImageSet) -> Images:
    """The images of a labelled set."""
    return Images(images.name, tuple(printable(images.called(index)) for index in range(len(images))), images.order)


def some_of(images: Images, rows: Sequence[int]) -> Images:
    """Some of the images, by their numbers; all keep their name."""
    if len(rows) == len(images):
        return images
    return named_images(images.name, [images.ids[row] for row in rows], images.order)


def named_images(name: str, ids: Sequence[str], content: str) -> Images:
    """Images that are known by name, of a dataset with this fingerprint."""
    digest = hashlib.sha256("\0".join([content, *ids]).encode(errors="surrogateescape"))
    return Images(name, tuple(map(printable, ids)), digest.hexdigest()[:16])


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcomes(ABC):
    """What a run answered for N images."""

    KIND: ClassVar[str]
    images: Images
    classes: tuple[str, ...]
    measures: Mapping[str, str] = field(default_factory=dict)
    """Metrics that these outcomes determine, and the measure of this kind that gives each."""

    def metrics(self) -> dict[str, float]:
        """Every metric that is determined, from these outcomes alone."""
        return {name: float(self.measure(name, np.ones((1, len(self.images)), np.int64))[0]) for name in self.measures}

    def each(self, metric: str) -> Floats | None:
        """The metric of every image (N,), where it is a mean over images; else None."""
        return None

    @abstractmethod
    def measure(self, metric: str, counts: Ints) -> Floats:
        """The metric (B,) where image n occurs `counts[b, n]` times, for `counts` (B, N)."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored, by name."""

    @classmethod
    def restored(cls, arrays: Mapping[str, Any], **common: Any) -> Self:
        """The outcomes whose `arrays` these are; `common` are the fields that every kind has."""
        return cls(**common, **arrays)

    @abstractmethod
    def rows(self) -> Iterator[Sequence[Any]]:
        """The table of `to_csv`: the header, then the lines."""

    def to_csv(self) -> str:
        """The outcomes as a table, in a form for people and spreadsheets."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(self.rows())
        return out.getvalue()

    def save(self, folder: Path) -> None:
        """Write `outcomes.npz` in a run's folder, whole or not at all."""
        about = {
            "version": VERSION,
            "kind": self.KIND,
            "set": self.images.name,
            "order": self.images.order,
            "classes": self.classes,
            "measures": dict(self.measures),
        }
        texts = {"about": json.dumps(about), "images": "\n".join(self.images.ids)}
        stored: dict[str, Any] = {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}
        stored |= {name: _smallest(array) for name, array in self.arrays().items()}
        with replacing(folder / FILE) as path:
            np.savez_compressed(path, **stored)


def _smallest(array: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest type that holds them."""
    if array.dtype.kind != "i" or not array.size:
        return array
    low, high = int(array.min()), int(array.max())
    return array.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)))


def per_cent(parts: Floats, wholes: Floats) -> Floats:
    """100 times `parts` / `wholes`, NaN where the whole is 0."""
    return np.divide(100 * parts, wholes, out=np.full(np.shape(parts), np.nan), where=wholes > 0)


def named(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays whose name begins with `prefix`, by the rest of their name."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
