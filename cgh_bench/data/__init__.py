"""Labelled images by name: the entries of each file's CATALOG, or any folder laid out as an ImageFolder."""

import os
from pathlib import Path

from cgh_bench.data.image_set import DetectionScenes, ImageSet, LabelledImages, Split
from cgh_bench.discovery import registered
from cgh_bench.errors import UserError, unknown

__all__ = ["DetectionScenes", "ImageSet", "LabelledImages", "Split", "catalog", "load"]


def catalog() -> dict[str, LabelledImages | DetectionScenes]:
    """Every data set that comes with the package, by name."""
    return registered("cgh_bench.data", "CATALOG")


def load(name: str, split: Split, root: Path | None = None) -> ImageSet:
    """The labelled images of one split.

    Args:
        name: an entry of the catalogue ("animals"), or a folder with `train/CLASS/*` and `val/CLASS/*` below it:
            as given, else below `root`.
        split: "train" or "val".
        root: where data sets live; default `$CGH_DATA`, else `./data`.

    Raises:
        UserError: no such data set or split, a data set without image labels, or a folder of another layout.
    """
    from cgh_bench.data.folder import load_folder

    if split not in ("train", "val"):
        raise unknown("split", split, ("train", "val"))
    entry = catalog().get(name)
    if isinstance(entry, LabelledImages):
        return entry.load(split)
    if entry is not None:
        labelled = [known for known, other in catalog().items() if isinstance(other, LabelledImages)]
        raise UserError(f"{name!r} is a set of scenes for detection and segmentation; labelled images: {labelled}")
    root = root or Path(os.environ.get("CGH_DATA", "data"))
    for folder in (Path(name), root / name):
        if folder.is_dir():
            return load_folder(folder, split)
    if os.sep in name:
        raise UserError(f"no folder {name!r}; an ImageFolder with train/ and val/ below it is needed")
    hint = unknown("data set", name, catalog())
    raise UserError(f"{hint} An ImageFolder of your own is expected in {root / name} ($CGH_DATA moves the root)")
