"""Image files on disk as a set: `FOLDER/train/CLASS/*.jpg` and `FOLDER/val/CLASS/*.jpg`, as for ImageNet, or a list."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.decoding import read_image
from cgh_bench.data.image_set import ImageSet, Split

if TYPE_CHECKING:
    from torch import Tensor

# The suffixes of torchvision.datasets.folder.IMG_EXTENSIONS.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class FolderImages(ImageSet):
    """Images read from files as they are asked for; `paths` are relative to `folder`."""

    folder: Path
    paths: tuple[str, ...]

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
) -> FolderImages:
    """The images of a list of `(path below folder, label)`, in its order.

    The fingerprint covers each file's path, size and label, not its content: reading all of ImageNet to name it is
    unaffordable. `touched` covers the times of change too.

    Raises:
        UserError: there is none in the list, files are absent, a label is no class (`ImageSet`), or a class has a name
            that is not UTF-8.
    """
    _require_utf8(name, classes)
    paths = tuple(path for path, _ in listed)
    labels = np.array([label for _, label in listed], dtype=np.int64)
    absent = []
    digest = hashlib.sha256("\0".join(classes).encode())
    times = hashlib.sha256()
    for path, label in listed:
        try:
            status = (folder / path).stat()
        except FileNotFoundError:
            absent.append(path)
            continue
        digest.update(f"{path}\0{status.st_size}\0{label}\n".encode("utf-8", "surrogateescape"))
        times.update(status.st_mtime_ns.to_bytes(16, "little", signed=True))
    if absent:
        raise UserError(
            f"{len(absent)} of the {len(paths)} images of {name} are absent, the first is {folder / absent[0]}; "
            "unpack the images there, all of them"
        )
    fingerprint, touched = digest.hexdigest()[:16], times.hexdigest()[:16]
    return FolderImages(name, tuple(classes), labels, fingerprint, folder, paths, held_out=held_out, touched=touched)


def _require_utf8(name: str, classes: Sequence[str]) -> None:
    """Of the names of classes, which tables and pages show; images may be called anything."""
    for each in classes:
        try:
            each.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{name}: the class {os.fsencode(each)!r} has a name that is not UTF-8; rename it"
            ) from None


def load_folder(folder: Path, split: Split, only: Sequence[str] = ()) -> FolderImages:
    """One split of an ImageFolder. Classes are the sub-folders, sorted; images those below them, sorted.

    `only` names the classes to take, where not all are meant.

    Raises:
        UserError: a split is missing, train and val have different classes, or a class has no image.

    Warns:
        UserWarning: there are files that are no images (by suffix) or lie outside a class; they are left out.
    """
    classes = _classes(folder, only)
    root = folder / split
    listed: list[tuple[str, object]] = []
    others = [entry.name for entry in os.scandir(root) if not entry.is_dir()]
    for label, name in enumerate(classes):
        files = _files(root / name, name)
        images = [path for path in files if path.lower().endswith(SUFFIXES)]
        if not images:
            raise UserError(f"no image in {root / name}; put some there ({' '.join(SUFFIXES)}) or remove the folder")
        others += sorted(set(files) - set(images))
        listed += [(path, label) for path in images]
    if others:
        shown = ", ".join(sorted(others)[:5]) + (", …" if len(others) > 5 else "")
        warnings.warn(f"{len(others)} files in {root} are not images of a class, left out: {shown}", stacklevel=3)
    return from_list(f"{folder.name}/{split}", root, classes, listed)


def _classes(folder: Path, only: Sequence[str]) -> tuple[str, ...]:
    """The classes of a data set, which must be the same in both splits."""
    found = {}
    for split in ("train", "val"):
        root = folder / split
        if not root.is_dir():
            raise UserError(
                f"{folder} has no folder {split}/; accepted are train/CLASS/*.jpg and val/CLASS/*.jpg below it, or tar "
                "shards train/*.tar and val/*.tar: put the images to learn from into train/, the others, of the same "
                "classes, into val/"
            )
        found[split] = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        if not found[split]:
            raise UserError(f"{root} has no sub-folders; one per class is needed, with its images inside")
        if only:
            absent = sorted(set(only) - set(found[split]))
            if absent:
                raise UserError(f"{root} lacks {len(absent)} of the {len(only)} classes asked for: {absent[0]}, …")
            found[split] = sorted(only)
    if found["train"] != found["val"]:
        odd = sorted(set(found["train"]) ^ set(found["val"]))
        raise UserError(f"train and val of {folder} have different classes; only in one: {', '.join(odd[:5])}")
    return tuple(found["train"])


def _files(folder: Path, relative: str) -> list[str]:
    """All files below `folder`, sorted; links are followed."""
    found = []
    for entry in os.scandir(folder):
        path = f"{relative}/{entry.name}"
        found += _files(Path(entry.path), path) if entry.is_dir() else [path]
    return sorted(found)
