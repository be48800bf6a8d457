"""Labelled images by name: the entries of each file's CATALOG, or any folder of image files or tar shards."""

import os
from functools import cache as cached
from pathlib import Path
from typing import Any

from cgh_bench.core.errors import UserError, unknown
from cgh_bench.core.registry import registered
from cgh_bench.data.image_set import (
    DataPair,
    DetectionScenes,
    FetchedImages,
    ImageSet,
    LabelledImages,
    RelatedImages,
    Split,
)

__all__ = [
    "DataPair",
    "DetectionScenes",
    "FetchedImages",
    "ImageSet",
    "LabelledImages",
    "RelatedImages",
    "Split",
    "any_images",
    "catalog",
    "data_root",
    "find_folder",
    "is_known",
    "load",
    "load_pair",
    "load_related",
]


def catalog() -> dict[str, LabelledImages | FetchedImages | DetectionScenes | RelatedImages]:
    """Every dataset that is known by name: made here, or fetched by the user."""
    return registered("cgh_bench.data", "CATALOG")


def is_known(name: str) -> bool:
    """Whether `name` is that of a dataset, of images or for detection and segmentation, not a folder of the user's."""
    return name in catalog() or name in registered("cgh_bench.data.layouts", "LAYOUTS")


def data_root() -> Path:
    """Where datasets live: `$CGH_DATA`, else `./data`."""
    return Path(os.environ.get("CGH_DATA", "data"))


def find_folder(name: str, root: Path | None = None) -> Path | None:
    """The folder of the user's that `load` takes `name` for: as given, else below `root`; None if there is none."""
    return next((folder for folder in (Path(name), (root or data_root()) / name) if folder.is_dir()), None)


def load(name: str, split: Split, root: Path | None = None, cache: Path | None = None) -> ImageSet:
    """The labelled images of one split.

    Args:
        name: an entry of the catalogue ("animals"), or a folder, as given or else below `root`, with
            `train/CLASS/*.jpg` and `val/CLASS/*.jpg`, or with `train/*.tar`, `val/*.tar` and `classes.txt`; or a table
            of own labels (`manifest`).
        split: "train" (all that may be learned from) or "val" (what is reported).
        root: where datasets live; default `data_root()`.
        cache: where hashes of files are remembered; without it, the fingerprint reads every file.

    Raises:
        UserError: no such dataset or split, a dataset without image labels, or a folder of another layout.
    """
    from cgh_bench.data.folder import load_folder
    from cgh_bench.data.manifest import is_manifest, load_manifest
    from cgh_bench.data.shards import are_shards, load_shards

    if split not in ("train", "val"):
        raise unknown("split", split, ("train", "val"))
    root = root or data_root()
    entry = catalog().get(name)
    if isinstance(entry, LabelledImages):
        return entry.load(split)
    if isinstance(entry, FetchedImages):
        return entry.load(root, split, cache)
    if entry is not None:
        raise UserError(f"{name!r} has images for {entry.kind}, not class labels (cgh-bench list data); animals has")
    for table in (Path(name), root / name):
        if is_manifest(table):
            return load_manifest(table, split, cache)
    if folder := find_folder(name, root):
        return (load_shards if are_shards(folder) else load_folder)(folder, split, cache)
    if os.sep in name:
        raise UserError(f"no folder {name!r}; expected one with train/CLASS/*.jpg and val/CLASS/*.jpg")
    hint = str(unknown("dataset", name, catalog())).removesuffix("?")
    raise UserError(f"{hint}; for your own data, pass a folder or put it in {root / name} ($CGH_DATA/NAME)")


def any_images(name: str, split: Split, cache: Path | None = None) -> ImageSet:
    """The images of a split of a dataset, or all in a folder that has no splits, whatever is known of them.

    Raises:
        UserError: as `load`; or the folder has no images.
    """
    from cgh_bench.data.folder import VAL_FOLDERS, load_unlabelled

    folder = None if name in catalog() else find_folder(name)
    if folder and not any((folder / part).is_dir() for part in ("train", *VAL_FOLDERS)):
        return load_unlabelled(folder, cache)
    return load(name, split, cache=cache)


def load_related(name: str, kind: str, cache: Path | None = None) -> Any:
    """The images of the catalogue's entry `name`, below `data_root()`, which must be of that kind.

    Raises:
        UserError: no such entry, or its files are absent or broken.
    """
    entry = catalog().get(name)
    if not isinstance(entry, RelatedImages) or entry.kind != kind:
        raise unknown(f"dataset for {kind}", name, [known for known, one in catalog().items() if one.kind == kind])
    return entry.load(data_root(), cache)


@cached
def load_pair(name: str, root: Path, cache: Path | None = None, val_split: float = 0.0) -> DataPair:
    """The train and the val images of a dataset below `root`, looked up once in a process (or `cache_clear`).

    Args:
        name: as for `load`.
        root: as for `load`.
        cache: as for `load`.
        val_split: for a folder without val, the share of every class's images to draw for it.

    Raises:
        UserError: as `load`; or no dataset named; or train and val have different classes.
    """
    from cgh_bench.data.folder import split_folder

    if not name:
        raise UserError("this task needs your data: --data FOLDER (with train/ and val/)")
    if not val_split:
        return DataPair(name, load(name, "train", root, cache), load(name, "val", root, cache))
    if not 0 < val_split < 1:
        raise UserError(f"val_split={val_split:g} must be a share between 0 and 1")
    folder = None if name in catalog() else find_folder(name, root)
    if folder is None:
        raise UserError(f"val_split={val_split:g} applies only to your own folder, not to {name!r}")
    return DataPair(name, *(split_folder(folder, split, val_split, cache) for split in ("train", "val")))
