"""What a kNN evaluation found: the same val images for every row of a table, each with its nearest train images."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench import data
from cgh_bench.core.errors import UserError
from cgh_bench.data import ImageSet
from cgh_bench.results import Result
from cgh_bench.site.pictures import data_uri

QUERIES = 5
SHOWN = 8
FILE = "neighbours.npz"


@dataclass(frozen=True)
class Neighbour:
    """One train image."""

    picture: str
    """Data URI."""
    label: str
    right: bool
    """Of the class of the query."""
    similarity: float
    """Cosine."""


@dataclass(frozen=True)
class Answer:
    """What one backbone finds near a query."""

    row: str
    neighbours: tuple[Neighbour, ...]
    predicted: str

    @property
    def right(self) -> int:
        """How many neighbours are of the query's class."""
        return sum(neighbour.right for neighbour in self.neighbours)


@dataclass(frozen=True)
class Query:
    """One val image and the answers to it."""

    picture: str
    label: str
    answers: tuple[Answer, ...]


def queries(runs: Sequence[tuple[str, Result]], root: Path, notes: list[str]) -> list[Query]:
    """Pictures from one run for each row label, all of the same task; what cannot be shown is said in `notes`.

    The queries are the first val image of classes spread evenly over the list of classes: chosen by no result.

    Args:
        runs: (row label, result); the side products are below `root`.
        root: folder of the result store.
        notes: is appended to.
    """
    found = [(row, _read(root / result.work / FILE, row, notes)) for row, result in runs]
    usable = [(row, arrays) for row, arrays in found if arrays is not None]
    if not usable:
        return []
    name = str(runs[0][1].config.get("data"))
    try:
        train, val = data.load(name, "train"), data.load(name, "val")
        return [_query(index, usable, train, val) for index in _chosen(val)]
    except (UserError, IndexError) as error:
        notes.append(f"No retrieval pictures: {error}.")
        return []


Arrays = dict[str, NDArray[Any]]


def _read(path: Path, row: str, notes: list[str]) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("row", "similarity", "predicted")}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        notes.append(f"{row}: no retrieval pictures, {path.name} of that run is missing or broken ({error}).")
        return None


def _chosen(val: ImageSet) -> list[int]:
    classes = np.unique(val.labels)
    some = classes[np.linspace(0, len(classes) - 1, min(QUERIES, len(classes))).round().astype(int)]
    return [int(np.flatnonzero(val.labels == label)[0]) for label in some]


def _query(index: int, usable: Sequence[tuple[str, Arrays]], train: ImageSet, val: ImageSet) -> Query:
    label = int(val.labels[index])
    answers = []
    for row, arrays in usable:
        nearest = [
            Neighbour(_picture(train, int(i)), train.classes[train.labels[i]], int(train.labels[i]) == label, float(s))
            for i, s in zip(arrays["row"][index, :SHOWN], arrays["similarity"][index, :SHOWN], strict=True)
        ]
        answers.append(Answer(row, tuple(nearest), val.classes[arrays["predicted"][index]]))
    return Query(_picture(val, index), val.classes[label], tuple(answers))


def _picture(images: ImageSet, index: int) -> str:
    image = Image.fromarray(images.image(index).permute(1, 2, 0).numpy())
    image.thumbnail((128, 128))
    return data_uri(image)
