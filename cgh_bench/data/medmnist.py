"""MedMNIST's two-dimensional sets: one `.npz` each, as its package and its page give them.

"train" is the set's train and validation images, the latter `held_out`; "val" is its test images. Classes are numbers:
their names are in the package, not in the file.
"""

from functools import partial
from pathlib import Path

import numpy as np

from cgh_bench.core.saved import load_arrays
from cgh_bench.data.image_set import ColourImages, FetchedImages, GreyImages, ImageSet, Split, content_fingerprint

SETS = {
    "pathmnist": "tissue of the colon, 9 classes",
    "chestmnist": "chest X-rays, 14 findings, multi-label",
    "dermamnist": "skin, 7 classes",
    "octmnist": "retina in OCT, 4 classes",
    "pneumoniamnist": "chest X-rays, pneumonia or none",
    "retinamnist": "fundus, 5 grades",
    "breastmnist": "breast in ultrasound, 2 classes",
    "bloodmnist": "blood cells, 8 classes",
    "tissuemnist": "kidney cells, 8 classes",
    "organamnist": "abdomen in CT, axial, 11 organs",
    "organcmnist": "abdomen in CT, coronal, 11 organs",
    "organsmnist": "abdomen in CT, sagittal, 11 organs",
}


def _read(folder: Path, split: Split, cache: Path | None, name: str) -> ImageSet:
    arrays = load_arrays(folder / f"{name}.npz")
    parts = ("train", "val") if split == "train" else ("test",)
    pixels = np.concatenate([arrays[f"{part}_images"] for part in parts])
    labels = np.concatenate([arrays[f"{part}_labels"] for part in parts]).astype(np.int64)
    last = int(max(arrays[f"{part}_labels"].max() for part in ("train", "val", "test")))
    several = labels.shape[1] > 1
    classes = tuple(map(str, range(labels.shape[1] if several else last + 1)))
    labels = labels if several else labels[:, 0]
    fitted = len(arrays["train_images"])
    held_out = np.arange(fitted, len(pixels), dtype=np.int64) if split == "train" else None
    content = content_fingerprint(classes, pixels, labels)
    if pixels.ndim == 3:
        return GreyImages(f"{name}/{split}", classes, labels, content, pixels, held_out=held_out)
    columns = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return ColourImages(f"{name}/{split}", classes, labels, content, columns, held_out=held_out)


def _entry(name: str, what: str) -> FetchedImages:
    return FetchedImages(
        description=f"MedMNIST: {what}",
        source="Yang et al., Scientific Data 2023, https://medmnist.com; no usual transform: the transfer suite's",
        folder="medmnist",
        needs=(f"{name}.npz",),
        how=f'pip install medmnist; python -m medmnist download --root="$CGH_DATA/medmnist" (or {name}.npz of '
        "https://zenodo.org/records/10519652)",
        read=partial(_read, name=name),
        metric="mAP" if name == "chestmnist" else "top1",
    )


CATALOG = {name: _entry(name, what) for name, what in SETS.items()}
