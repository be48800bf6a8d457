"""A folder on disk as a set of images: `FOLDER/train/CLASS/*.jpg` and `FOLDER/val/CLASS/*.jpg`, as for ImageNet."""

import hashlib
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from cgh_bench.data.image_set import ImageSet, Split
from cgh_bench.errors import UserError

# The suffixes of torchvision.datasets.folder.IMG_EXTENSIONS.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class FolderImages(ImageSet):
    """Images read from files as they are asked for; `paths` are relative to `folder` (a split's)."""

    folder: Path
    paths: tuple[str, ...]

    def image(self, index: int) -> torch.Tensor:
        """Image `index` as (3, H, W) uint8 RGB, each in its own size; see `read_image`."""
        return read_image(self.folder / self.paths[index])


def load_folder(folder: Path, split: Split) -> FolderImages:
    """One split of an ImageFolder. Classes are the sub-folders, sorted; images those below them, sorted.

    The fingerprint covers each file's path, size, time of change and label, not its content: reading all of ImageNet
    to name it is unaffordable. A copy that does not keep the times has another fingerprint.

    Raises:
        UserError: a split is missing, train and val have different classes, or a class has no image.

    Warns:
        UserWarning: there are files that are no images (by suffix) or lie outside a class; they are left out.
    """
    classes = _classes(folder)
    root = folder / split
    digest = hashlib.sha256("\0".join(classes).encode())
    paths: list[str] = []
    labels: list[int] = []
    others = [entry.name for entry in os.scandir(root) if not entry.is_dir()]
    for label, name in enumerate(classes):
        before = len(paths)
        for path, status in _files(root / name, name):
            if not path.lower().endswith(SUFFIXES):
                others.append(path)
                continue
            digest.update(
                f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{label}\n".encode("utf-8", "surrogateescape")
            )
            paths.append(path)
            labels.append(label)
        if len(paths) == before:
            raise UserError(f"no image in {root / name}; put some there ({' '.join(SUFFIXES)}) or remove the folder")
    if others:
        shown = ", ".join(sorted(others)[:5]) + (", …" if len(others) > 5 else "")
        warnings.warn(f"{len(others)} files in {root} are not images of a class, left out: {shown}", stacklevel=3)
    return FolderImages(
        name=f"{folder.name}/{split}",
        classes=classes,
        labels=np.array(labels, dtype=np.int64),
        fingerprint=digest.hexdigest()[:16],
        folder=root,
        paths=tuple(paths),
    )


def read_image(path: Path) -> torch.Tensor:
    """The image in a file as (3, H, W) uint8 RGB, turned as its EXIF orientation says.

    Grey, palette, CMYK and 16-bit images are converted (16 bits by their upper 8); an alpha channel is dropped.

    Raises:
        UserError: the file cannot be decoded whole, has several frames, or has floating-point pixels.
    """
    try:
        with Image.open(path) as file:
            # A phone's JPEG with a second, embedded picture (MPO) is still one image: its first.
            frames = getattr(file, "n_frames", 1)
            if frames > 1 and file.format != "MPO":
                raise UserError(f"{path} has {frames} frames; one image per file is needed, extract them")
            image = ImageOps.exif_transpose(file)
            pixels = np.array(_to_rgb(image, path))
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot decode {path} as an image ({reason}); replace or remove the file") from None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F":
        raise UserError(f"{path} has floating-point pixels of unknown range; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _classes(folder: Path) -> tuple[str, ...]:
    """The classes of a data set, which must be the same in both splits."""
    found = {}
    for split in ("train", "val"):
        root = folder / split
        if not root.is_dir():
            raise UserError(f"{folder} has no folder {split}/; an ImageFolder has train/CLASS/* and val/CLASS/*")
        found[split] = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        if not found[split]:
            raise UserError(f"{root} has no sub-folders; one per class is needed, with its images inside")
    if found["train"] != found["val"]:
        odd = sorted(set(found["train"]) ^ set(found["val"]))
        raise UserError(f"train and val of {folder} have different classes; only in one: {', '.join(odd[:5])}")
    return tuple(found["train"])


def _files(folder: Path, relative: str) -> list[tuple[str, os.stat_result]]:
    """All files below `folder` with their status, sorted by path; links are followed."""
    found = []
    for entry in os.scandir(folder):
        path = f"{relative}/{entry.name}"
        found += _files(Path(entry.path), path) if entry.is_dir() else [(path, entry.stat())]
    return sorted(found)
