"""Frozen features: extracted once per weights, data and transform, kept on disk, read back memory-mapped."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.config import fingerprint
from cgh_bench.data import load
from cgh_bench.data.image_set import GreyImages, ImageSet
from cgh_bench.data.transform import EvalTransform
from cgh_bench.device import pick_device
from cgh_bench.errors import CheckFailed, UserError
from cgh_bench.files import alone_in, write_text
from cgh_bench.progress import progress

BATCH_SIZE = 256
BATCHES_PER_SAVE = 32
ROWS_PER_SLICE = 65_536


@dataclass(frozen=True)
class FeatureBank:
    """The features of one image set, in its order."""

    features: NDArray[np.float32]
    """(N, D), memory-mapped read-only."""
    labels: NDArray[np.int64]
    """(N,)"""
    classes: tuple[str, ...]
    fingerprint: str
    """Of weights, data and transform together."""


def extract(
    checkpoint: Checkpoint, images: ImageSet, transform: EvalTransform, feature: str, cache: Path
) -> FeatureBank:
    """The `feature` of every image, from `cache` where it was computed before, else computed and kept there.

    An interrupted extraction goes on where it stopped.

    Args:
        checkpoint: the frozen weights.
        images: N images.
        transform: what happens to an image before the checkpoint's own preprocessing.
        feature: what to take, as `checkpoint.architecture.targets` names it: `layer4` (the global feature), another
            stage, or several joined by `+` (their hypercolumn).
        cache: a folder; one sub-folder per fingerprint.

    Raises:
        UserError: an unknown feature, images of different sizes under a transform that keeps sizes, or features that
            are not finite (the images are named).
    """
    targets = checkpoint.architecture.targets(feature)
    key = bank_key(checkpoint.id, images, transform, targets)
    folder = cache / key
    done = folder / "done.json"
    if not done.exists():
        with alone_in(folder, wait=True):
            if not done.exists():
                _fill(folder, checkpoint, images, transform, targets)
    features = np.load(folder / "features.npy", mmap_mode="r")
    _require_finite(features, images)
    return FeatureBank(features, images.labels, images.classes, key)


def bank_key(checkpoint_id: str, images: ImageSet, transform: EvalTransform, targets: tuple[str, ...]) -> str:
    """The name of the folder of a bank in the cache."""
    return fingerprint([checkpoint_id, images.fingerprint, transform, targets])


def extract_pair(
    checkpoint: Checkpoint, data: str, transform: EvalTransform, feature: str, cache: Path
) -> tuple[FeatureBank, FeatureBank]:
    """The features of the train and of the val images of a data set."""
    train, val = load_pair(data)
    return (
        extract(checkpoint, train, transform, feature, cache / "features"),
        extract(checkpoint, val, transform, feature, cache / "features"),
    )


def pair_fingerprint(data: str) -> str:
    """Of the train and the val images together."""
    return fingerprint([images.fingerprint for images in load_pair(data)])


def load_pair(data: str) -> tuple[ImageSet, ImageSet]:
    """The train and the val images of a data set.

    Raises:
        UserError: no data set named, or none of that name.
    """
    if not data:
        raise UserError("this task has no data set of its own; name one: --data FOLDER (with train/ and val/ below it)")
    return load(data, "train"), load(data, "val")


def _fill(
    folder: Path, checkpoint: Checkpoint, images: ImageSet, transform: EvalTransform, targets: tuple[str, ...]
) -> None:
    device = pick_device()
    trunk = checkpoint.backbone().to(device)
    dim = trunk.width(targets)
    folder.mkdir(parents=True, exist_ok=True)
    bank, done = _open_bank(folder, len(images), dim)
    loader = DataLoader(_Transformed(images, transform, done), BATCH_SIZE, num_workers=_workers(images))
    with torch.inference_mode(), progress(f"features of {images.name}", len(images)) as tick:
        for number, batch in enumerate(loader, start=1):
            x = checkpoint.preprocessing(batch.to(device))
            bank[done : done + len(x)] = trunk.pooled(x, targets).float().cpu().numpy()
            done += len(x)
            tick(done)
            if number % BATCHES_PER_SAVE == 0:
                _save_progress(folder, bank, done)
    _require_frozen(checkpoint, trunk)
    _save_progress(folder, bank, done)
    write_text(folder / "done.json", json.dumps({"images": images.name, "checkpoint": checkpoint.name, "dim": dim}))


def _workers(images: ImageSet) -> int:
    """Worker processes pay where files are decoded, not for images that are in memory."""
    return 0 if isinstance(images, GreyImages) else min(8, os.cpu_count() or 1)


def _require_frozen(checkpoint: Checkpoint, trunk: nn.Module) -> None:
    """Prove that the extraction moved neither a weight nor a BatchNorm statistic."""
    for key, tensor in trunk.state_dict().items():
        if not torch.equal(_bytes(tensor.cpu()), _bytes(checkpoint.weights[key])):
            raise CheckFailed(f"{checkpoint.name}: {key} changed during feature extraction; the trunk must stay frozen")


def _bytes(tensor: Tensor) -> Tensor:
    """As bytes even NaN equals itself."""
    return tensor.reshape(-1).view(torch.uint8)


def _require_finite(features: NDArray[np.float32], images: ImageSet) -> None:
    """Refuse NaN and infinity; rows are checked in slices, so that the bank may exceed memory."""
    for start in range(0, len(features), ROWS_PER_SLICE):
        rows = np.flatnonzero(~np.isfinite(features[start : start + ROWS_PER_SLICE]).all(axis=1))
        if len(rows):
            named = ", ".join(str(start + row) for row in rows[:5])
            raise UserError(
                f"the features of {images.name} are not finite for {len(rows)} images or more (numbers {named}); "
                "the weights or the preprocessing are broken: look at `cgh-bench inspect`"
            )


def _open_bank(folder: Path, n: int, dim: int) -> tuple[np.memmap[Any, Any], int]:
    """The array on disk, and how many of its rows an earlier run has filled."""
    progress, path = folder / "progress.json", folder / "features.npy"
    if progress.exists():
        return np.load(path, mmap_mode="r+"), int(json.loads(progress.read_text())["rows"])
    bank = open_memmap(path, mode="w+", dtype=np.float32, shape=(n, dim))  # type: ignore[no-untyped-call]
    with path.open("rb+") as file:  # a full disk must be an error here, not a bus error later
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return bank, 0


def _save_progress(folder: Path, bank: np.memmap[Any, Any], rows: int) -> None:
    bank.flush()
    write_text(folder / "progress.json", json.dumps({"rows": rows}))


class _Transformed(Dataset[Tensor]):
    """The images from `start` on, transformed."""

    def __init__(self, images: ImageSet, transform: EvalTransform, start: int) -> None:
        self.images, self.transform, self.start = images, transform, start

    def __len__(self) -> int:
        return len(self.images) - self.start

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.images.image(self.start + index))
