"""Datasets for detection and segmentation: the embedded one is written when it is used, the others are looked for."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.registry import registered
from cgh_bench.data import catalog, data_root
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.data.layout import Checked, Layout, check

Kind = Literal["objects", "maps"]
"""What is annotated: boxes and masks of objects, or a class for each pixel."""


@dataclass(frozen=True)
class Located:
    """A dataset that is there and complete."""

    root: Path
    """The folder that holds the dataset's own folder, as `CGH_DATA` does."""
    fingerprint: str
    """Sixteen hex digits of its content."""
    train: str
    """Sixteen hex digits of the content of what is trained on."""
    subset: str = ""
    """How much of the published data is there, if fewer images are meant."""


@dataclass(frozen=True)
class Generated:
    """The embedded dataset, which is written when one of these properties is used."""

    subset: ClassVar = ""
    name: str
    cache_folder: Path

    @property
    def root(self) -> Path:
        """See `Located`."""
        return _written(self.name, self.cache_folder).root

    @property
    def fingerprint(self) -> str:
        """See `Located`."""
        return _written(self.name, self.cache_folder).fingerprint

    @property
    def train(self) -> str:
        """See `Located`."""
        return _written(self.name, self.cache_folder).train


@dataclass(frozen=True)
class Own:
    """Data of the user's own that are there and complete."""

    subset: ClassVar = ""
    kind: Kind
    root: Path
    """The folder that all images are below."""
    file: Path
    """JSON with what a framework is told of them: classes, and where images and annotations are."""
    classes: tuple[str, ...]
    images: int
    """How many are trained on."""
    fingerprint: str
    """See `Located`."""
    train: str
    """See `Located`."""
    without_mask: str = ""
    """The first object that has a box only."""
    without_keypoints: str = ""
    """The first object, or class, without COCO's keypoints of persons."""


DenseData = Located | Generated | Own


def layouts() -> dict[str, Layout]:
    """Every dataset that the user fetches, by name."""
    return registered("cgh_bench.data.layouts", "LAYOUTS")


def locate(name: str, cache_folder: Path) -> DenseData:
    """The dataset `name`; an embedded one is written below `cache_folder` when it is used.

    Raises:
        UserError: unknown, absent or incomplete: what is missing, where it is expected, how to get it.
    """
    entry = catalog().get(name)
    if isinstance(entry, DetectionScenes):
        return Generated(name, cache_folder.resolve())
    if name not in layouts():
        scenes = [known for known, other in catalog().items() if isinstance(other, DetectionScenes)]
        raise unknown("dataset for detection or segmentation", name, [*layouts(), *scenes])
    return _found(name, data_root().resolve(), cache_folder)


def summary(name: str, found: Checked) -> str:
    """The first problem of the dataset, and how many more there are."""
    first = found.problems[0].replace("\n", "\\n")  # names of images, that a file of others' holds
    more = len(found.problems) - 1
    return first + (
        f", and {more} more problem{'s' * (more > 1)} (cgh-bench data check {name} lists them)" if more else ""
    )


@cache
def _written(name: str, cache_folder: Path) -> Located:
    entry = catalog()[name]
    assert isinstance(entry, DetectionScenes)
    folder = entry.write(cache_folder / name)
    train, val = ((folder / split / "annotations.json").read_bytes() for split in ("train", "val"))
    whole, learned = (hashlib.sha256(content).hexdigest()[:16] for content in (train + val, train))
    return Located(cache_folder, whole, learned)


@cache
def _found(name: str, root: Path, cache_folder: Path) -> Located:
    layout = layouts()[name]
    found = check(name, layout, root, cache_folder)
    if found.problems:
        raise UserError(
            f"{name} is not complete: {summary(name, found)} ($CGH_DATA is {root}); to get it, {layout.how}"
        )
    return Located(root, fingerprint([found.train, found.val]), found.train, found.subset)
