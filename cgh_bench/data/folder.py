"""Image files on disk as a set: `FOLDER/train/CLASS/*.jpg` and `FOLDER/val/CLASS/*.jpg`, as for ImageNet, or a list.

Hidden files and folders, and those that operating systems and file servers leave everywhere, are passed over. Names of
classes are in Unicode's composed form (NFC), whatever the disk has: a folder packed on a Mac has the other one.
"""

import hashlib
import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import read_image
from cgh_bench.data.image_set import DataPair, ImageSet, Split, drawn_split

if TYPE_CHECKING:
    from torch import Tensor

# The suffixes of torchvision.datasets.folder.IMG_EXTENSIONS.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LEFTOVERS = ("@eaDir", "#recycle", "__MACOSX", "lost+found", "Thumbs.db", "ehthumbs.db", "desktop.ini")
VAL_FOLDERS = ("val", "valid", "validation", "test")
"""Accepted for the split that is reported."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FolderImages(ImageSet):
    """Images read from files as they are asked for; `paths` are relative to `folder`."""

    folder: Path
    paths: tuple[str, ...]
    cache: Path | None = field(default=None, kw_only=True)
    """Where hashes of the files are remembered."""

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the classes, and of each image's bytes, label and group in their order; no file name enters."""
        total = hashlib.sha256("\0".join(self.classes).encode())
        found = contents(self.folder, self.paths, self.cache)
        for content, label in zip(found, self.labels.tolist(), strict=True):
            total.update(content + str(label).encode())
        total.update(self.groups.digest() if self.groups else b"")
        return total.hexdigest()[:16]

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB, each in its own size; see `read_image`."""
        return read_image(self.folder / self.paths[index])

    def called(self, index: int) -> str:
        """Its path below `folder`."""
        return self.paths[index]


def from_list(
    name: str,
    folder: Path,
    classes: Sequence[str],
    listed: Sequence[tuple[str, object]],
    held_out: NDArray[np.int64] | None = None,
    cache: Path | None = None,
) -> FolderImages:
    """The images of a list of `(path below folder, label)`, in its order.

    Raises:
        UserError: there is none in the list, files are absent, a label is not a class (`ImageSet`), or a class has a
            name that is not UTF-8.
    """
    for each in classes:  # tables and pages show them; images may be called anything
        try:
            each.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{name}: the class {os.fsencode(each)!r} has a name that is not UTF-8; rename it"
            ) from None
    paths = tuple(path for path, _ in listed)
    absent = [path for path in paths if not (folder / path).exists()]
    if absent:
        raise UserError(
            f"{len(absent)} of the {len(paths)} images of {name} are missing (first: {folder / absent[0]}); "
            "unpack all images there"
        )
    labels = np.array([label for _, label in listed], dtype=np.int64)
    return FolderImages(name, tuple(classes), labels, folder, paths, held_out=held_out, cache=cache)


def load_folder(folder: Path, split: Split, cache: Path | None = None, only: Sequence[str] = ()) -> FolderImages:
    """One split of an ImageFolder. Classes are the sub-folders, sorted; images those anywhere below them, sorted.

    `only` names the classes to take, where not all are meant.

    Raises:
        UserError: the split is missing, a class has no image, or links form a loop.
    """
    return load_classes(_split_folder(folder, split), f"{folder.name}/{split}", cache, only)


def load_unlabelled(folder: Path, cache: Path | None = None) -> FolderImages:
    """All images in `folder/train`, or in `folder` if it has no `train/`, at any depth; they are given one label.

    Raises:
        UserError: there are none, or links form a loop.
    """
    root = folder / "train" if (folder / "train").is_dir() else folder
    paths = sorted(path for path in files_below(root) if path.lower().endswith(SUFFIXES))
    if not paths:
        raise UserError(f"no images in {root}; expected files {' '.join(SUFFIXES)}")
    return from_list(folder.name, root, ("unlabelled",), [(path, 0) for path in paths], cache=cache)


def split_folder(folder: Path, split: Split, val_split: float, cache: Path | None = None) -> ImageSet:
    """One split of a folder without val: of every class a share `val_split` of the images, drawn by a fixed seed.

    The images are in `train/CLASS`, or in `CLASS` if there is no `train/`.

    Raises:
        UserError: as `load_folder`; there is a val folder; or a class has too few images.
    """
    for name in VAL_FOLDERS:
        if (folder / name).is_dir():
            raise UserError(f"{folder} already has {name}/; leave out val_split")
    root = folder / "train" if (folder / "train").is_dir() else folder
    return drawn_split(load_classes(root, folder.name, cache), split, val_split)


def _split_folder(folder: Path, split: Split) -> Path:
    names = ("train",) if split == "train" else VAL_FOLDERS
    found = [name for name in names if (folder / name).is_dir()]
    if found and (found[0] == split or len(found) == 1):
        return folder / found[0]
    if found:
        raise UserError(f"{folder} has {' and '.join(f'{name}/' for name in found)}; rename the one to use to val/")
    there = sorted(f"{entry.name}/" for entry, place in _entries(folder, (_place(folder),)) if place)
    has = f" (it has {', '.join(there[:4])}{', …' if len(there) > 4 else ''})" if there else ""
    raise UserError(
        f"{folder / split} not found{has}; expected train/CLASS/*.jpg and val/CLASS/*.jpg, or tar shards train/*.tar "
        "and val/*.tar, in that folder; to split off val images at random, use --set val_split=0.2"
    )


def load_classes(root: Path, name: str, cache: Path | None = None, only: Sequence[str] = ()) -> FolderImages:
    """The images of the classes that are the sub-folders of `root`."""
    entries = list(_entries(root, (_place(root),)))
    folders: dict[str, str] = {}
    for each in sorted(entry.name for entry, place in entries if place):
        if (there := folders.setdefault(composed(each), each)) != each:
            raise UserError(f"{root} has one folder name in two Unicode encodings, {there!a} and {each!a}; merge them")
    classes = sorted(folders)
    if not classes:
        raise UserError(f"{root} has no sub-folders; expected one per class, with its images inside")
    if only:
        absent = sorted(set(only) - set(classes))
        if absent:
            raise UserError(f"{root} lacks {len(absent)} of the {len(only)} requested classes: {absent[0]}, …")
        classes = sorted(only)
    listed: list[tuple[str, object]] = []
    others = [entry.name for entry, place in entries if not place]
    for label, each in enumerate(folders[name] for name in classes):
        files = sorted(_files(root / each, each, (_place(root), _place(root / each))))
        images = [path for path in files if path.lower().endswith(SUFFIXES)]
        if not images:
            raise UserError(f"no images in {root / each}; expected files {' '.join(SUFFIXES)}, or remove the folder")
        others += sorted(set(files) - set(images))
        listed += [(path, label) for path in images]
    if others:
        shown = ", ".join(sorted(others)[:5]) + (", …" if len(others) > 5 else "")
        expected = f"CLASS/*{' *'.join(SUFFIXES)}"
        log.warning("note: ignored %d files in %s that are not %s: %s", len(others), root, expected, shown)
    return from_list(name, root, classes, listed, cache=cache)


def load_gallery(folder: Path, cache: Path | None = None) -> DataPair:
    """The images of `gallery/CLASS` as train and those of `query/CLASS` as val, of the classes of either.

    Raises:
        UserError: as `load_classes`.
    """
    parts = [load_classes(folder / part, f"{folder.name}/{part}", cache) for part in ("gallery", "query")]
    classes = tuple(sorted({*parts[0].classes, *parts[1].classes}))
    train, val = (
        replace(part, classes=classes, labels=np.searchsorted(classes, part.classes)[part.labels]) for part in parts
    )
    return DataPair(folder.name, train, val)


def composed(name: str) -> str:
    """The name of a class in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


Place = tuple[int, int]
"""Device and inode of a folder."""


def _place(folder: Path) -> Place:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _entries(folder: Path, above: tuple[Place, ...]) -> Iterator[tuple[os.DirEntry[str], Place | None]]:
    """What is in a folder, with the place of what is a folder itself; links are followed, leftovers passed over.

    Raises:
        UserError: a link leads back to one of the folders `above`.
    """
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name in LEFTOVERS:
            continue
        try:
            place = _place(Path(entry.path)) if entry.is_dir() else None
            if not place and not entry.is_file():
                raise UserError(f"{entry.path} is neither a file nor a folder (a pipe, or a dead link); remove it")
        except OSError as error:
            raise UserError(f"cannot read {entry.path} ({error.strerror}); remove it") from None
        if place in above:
            raise UserError(f"{entry.path} is a link to a folder that it is in; remove it")
        yield entry, place


def files_below(root: Path) -> Iterator[str]:
    """All files below `root`, relative to it.

    Raises:
        UserError: links form a loop, or something is neither a file nor a folder.
    """
    for path in _files(root, "", (_place(root),)):
        yield path[1:]


def _files(folder: Path, relative: str, above: tuple[Place, ...]) -> Iterator[str]:
    """All files below `folder`, their paths beginning with `relative`."""
    for entry, place in _entries(folder, above):
        path = f"{relative}/{entry.name}"
        if place:
            yield from _files(Path(entry.path), path, (*above, place))
        else:
            yield path
