"""Data sets for detection and segmentation: the embedded one is made where needed, the others are looked for."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cgh_bench.data import catalog
from cgh_bench.data.image_set import DetectionScenes
from cgh_bench.errors import UserError, unknown


@dataclass(frozen=True)
class CocoLayout:
    """A set in COCO's format that the user fetches: annotation files, each with its folder of images."""

    splits: Mapping[str, str]
    """`{"annotations/….json": "folder of its images"}`, below the set's folder."""
    how: str
    """Where to get it."""


LAYOUTS = {
    "coco": CocoLayout(
        {
            "annotations/instances_train2017.json": "train2017",
            "annotations/instances_val2017.json": "val2017",
        },
        "unpack http://images.cocodataset.org/zips/train2017.zip, …/zips/val2017.zip and "
        "…/annotations/annotations_trainval2017.zip there (25 GB)",
    ),
}


@dataclass(frozen=True)
class Located:
    """A data set that is there and complete."""

    root: Path
    """The folder that holds the set's own folder, as `CGH_DATA` does."""
    fingerprint: str
    """Sixteen hex digits of its annotations."""


def locate(name: str, cache_folder: Path) -> Located:
    """Find the data set `name`, or write it below `cache_folder` if it is an embedded one.

    Raises:
        UserError: unknown, absent or incomplete: what is missing, where it is expected, how to get it.
    """
    entry = catalog().get(name)
    if isinstance(entry, DetectionScenes):
        return _written(name, cache_folder.resolve())
    if name not in LAYOUTS:
        scenes = [known for known, other in catalog().items() if isinstance(other, DetectionScenes)]
        raise unknown("data set for detection or segmentation", name, [*LAYOUTS, *scenes])
    return _found(name, Path(os.environ.get("CGH_DATA", "data")).resolve())


@cache
def _written(name: str, cache_folder: Path) -> Located:
    entry = catalog()[name]
    assert isinstance(entry, DetectionScenes)
    folder = entry.write(cache_folder / name)
    return Located(cache_folder, _digest([folder / "train/annotations.json", folder / "val/annotations.json"]))


@cache
def _found(name: str, root: Path) -> Located:
    layout, folder = LAYOUTS[name], root / name
    needed = [*layout.splits, *layout.splits.values()]
    absent = [path for path in needed if not (folder / path).exists()]
    if absent:
        raise UserError(f"{name} is not complete: {', '.join(absent)} expected in {folder} (CGH_DATA); {layout.how}")
    for annotations, images in layout.splits.items():
        # Every image of an instances file has one such key, and nothing else has.
        listed = (folder / annotations).read_bytes().count(b'"file_name"')
        present = sum(1 for _ in os.scandir(folder / images))
        if present < listed:
            raise UserError(
                f"{folder / images} holds {present} files, {annotations} lists {listed} images; unpack it again: "
                f"{layout.how}"
            )
    return Located(root, _digest([folder / path for path in layout.splits]))


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
