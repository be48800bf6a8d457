"""Sets of small pictures that are held in memory: CIFAR-10 and -100, STL-10."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench.data.image_set import ColourImages, FetchedImages, ImageSet, Split, content_fingerprint
from cgh_bench.data.transfer_suite import torchvision_command


def _cifar10(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    files = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    return _cifar(f"cifar10/{split}", [folder / file for file in files], "labels", folder / "batches.meta")


def _cifar100(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    file = folder / ("train" if split == "train" else "test")
    return _cifar(f"cifar100/{split}", [file], "fine_labels", folder / "meta")


def _cifar(name: str, files: list[Path], key: str, meta: Path) -> ImageSet:
    """Pickles, read without running what they say (torchvision's own class unpickles them)."""
    from cgh_bench.core.pickles import load_numpy

    parts = [load_numpy(file) for file in files]
    pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([part[key] for part in parts]).astype(np.int64)
    return _in_memory(name, tuple(load_numpy(meta)[key.removesuffix("s") + "_names"]), pixels, labels)


def _stl10(folder: Path, split: Split, cache: Path | None) -> ImageSet:
    part = "train" if split == "train" else "test"
    columns = np.fromfile(folder / f"{part}_X.bin", np.uint8).reshape(-1, 3, 96, 96)
    labels = np.fromfile(folder / f"{part}_y.bin", np.uint8).astype(np.int64) - 1
    classes = tuple((folder / "class_names.txt").read_text().split())
    return _in_memory(f"stl10/{split}", classes, np.ascontiguousarray(columns.transpose(0, 1, 3, 2)), labels)


def _in_memory(name: str, classes: tuple[str, ...], pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> ImageSet:
    if len(pixels) != len(labels):
        raise ValueError(f"{len(pixels)} images and {len(labels)} labels")
    return ColourImages(name, classes, labels, content_fingerprint(classes, pixels, labels), pixels)


CATALOG = {
    "cifar10": FetchedImages(
        description="10 objects, 32×32: 50,000 train, 10,000 test; top-1",
        source="Krizhevsky 2009; https://www.cs.toronto.edu/~kriz/cifar.html",
        folder="cifar-10-batches-py",
        needs=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
        how=torchvision_command("CIFAR10"),
        counts=(50_000, 10_000),
        read=_cifar10,
    ),
    "cifar100": FetchedImages(
        description="100 objects, 32×32: 50,000 train, 10,000 test; top-1",
        source="Krizhevsky 2009; https://www.cs.toronto.edu/~kriz/cifar.html",
        folder="cifar-100-python",
        needs=("train", "test", "meta"),
        how=torchvision_command("CIFAR100"),
        counts=(50_000, 10_000),
        read=_cifar100,
    ),
    "stl10": FetchedImages(
        description="10 objects, 96×96: 5,000 train (all ten folds), 8,000 test; top-1",
        source="Coates et al., AISTATS 2011; https://cs.stanford.edu/~acoates/stl10; transform: as the suite",
        folder="stl10_binary",
        needs=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt"),
        how=torchvision_command("STL10"),
        counts=(5_000, 8_000),
        read=_stl10,
    ),
}
