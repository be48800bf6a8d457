"""Groups of images that a classifier should serve alike: hospitals, cameras, backgrounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each of N images."""

    names: tuple[str, ...]
    """Sorted; each has an image."""
    of: NDArray[np.int64]
    """(N,) indices into `names`."""

    def some(self, rows: NDArray[np.int64]) -> "Groups":
        """The groups of the images `rows` (n,)."""
        return grouped([self.names[group] for group in self.of[rows].tolist()])

    def digest(self) -> bytes:
        """Bytes that change when a group's name or members do."""
        return "\0".join(["groups", *self.names]).encode() + self.of.astype("<i8").tobytes()


def grouped(names: Sequence[str]) -> Groups:
    """The groups of N images, from the name of each image's group."""
    found, of = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    return Groups(tuple(found.tolist()), of.astype(np.int64))
