"""Frozen features: extracted once per weights, data and transform, kept on disk, read back memory-mapped."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint
from cgh_bench.core.device import Precision
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import alone_in, write_text
from cgh_bench.core.progress import duration
from cgh_bench.data.image_set import Hashed, Images, ImageSet, content_fingerprint
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.cost import measured
from cgh_bench.frozen.extraction import FILLED, Work, fill

if TYPE_CHECKING:
    from torch import Tensor

ROWS_COMPARED = 1_024
"""The number of first rows that are compared to notice a backbone that has collapsed."""


@dataclass(frozen=True)
class FeatureBank:
    """The features of one image set, in its order."""

    features: NDArray[np.float32]
    """(N, D), memory-mapped read-only."""
    labels: NDArray[np.int64]
    """(N,), or (N, C) of a multi-label set: see `ImageSet`."""
    classes: tuple[str, ...]
    fingerprint: str
    """The hash of weights, data and transform together."""
    held_out: NDArray[np.int64] | None = None
    """Rows that the set's authors set apart to choose hyper-parameters on."""


@dataclass(frozen=True, eq=False)
class GivenFeatures(Hashed):
    """Images of which only the features are there."""

    features: NDArray[np.float32]
    """(N, D)"""
    paths: tuple[str, ...] = ()

    @property
    def order(self) -> str:
        """The hash of classes, labels and paths: the features of another backbone are of the same images."""
        return content_fingerprint((*self.classes, *self.paths), self.labels)

    def called(self, index: int) -> str:
        """Its path, where it is known."""
        return self.paths[index] if self.paths else super().called(index)

    def image(self, index: int) -> "Tensor":
        """See `ImageSet`.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.name} has only features; this task needs images and a checkpoint")

    def bank(self) -> FeatureBank:
        """As if they had been extracted."""
        return FeatureBank(self.features, self.labels, self.classes, self.content)


def extract(
    checkpoint: Checkpoint,
    images: ImageSet,
    transform: EvalTransform,
    feature: str,
    cache: Path,
    precision: Precision = "fp32",
) -> FeatureBank:
    """The `feature` of every image, from `cache` where it was computed before, else computed and kept there.

    An interrupted extraction resumes where it stopped. Of several processes (`dist`), each computes a part.

    Args:
        checkpoint: the frozen weights.
        images: N images.
        transform: what happens to an image before the checkpoint's own preprocessing.
        feature: what to take, as `checkpoint.architecture.targets` names it: `layer4` (the global feature), another
            stage, or several joined by `+` (their hypercolumn).
        cache: a folder; one sub-folder per fingerprint.
        precision: of the backbone's arithmetic; the features are kept in float32.

    Raises:
        UserError: an unknown feature, images of different sizes under a transform that keeps sizes, images that cannot
            be read, or features that are not finite (the images are named).
    """
    (bank,) = extract_all(checkpoint, images, transform, (feature,), cache, precision)
    return bank


def extract_all(
    checkpoint: Checkpoint,
    images: ImageSet,
    transform: EvalTransform,
    features: Sequence[str],
    cache: Path,
    precision: Precision = "fp32",
) -> list[FeatureBank]:
    """See `extract`, here for several features; those not in `cache` are computed by one pass of the backbone."""
    targets = [checkpoint.architecture.targets(feature) for feature in features]
    if isinstance(images, GivenFeatures):
        return [images.bank() for _ in features]
    keys = [bank_key(checkpoint.id, images, transform, target, precision) for target in targets]
    wanted = {key: (target, name) for key, target, name in sorted(zip(keys, targets, features, strict=True))}
    work = Work(checkpoint, images, transform, tuple(target for target, _ in wanted.values()), precision)
    _require_filled(work, {cache / key: {"feature": name} for key, (_, name) in wanted.items()})
    return [
        FeatureBank(
            np.load(cache / key / "features.npy", mmap_mode="r"), images.labels, images.classes, key, images.held_out
        )
        for key in keys
    ]


def filled(work: Work, folder: Path, **record: object) -> "np.memmap[Any, Any]":
    """The bank of the work's only feature, memory-mapped; it is computed first where it is not whole.

    `record` is written beside a bank that is done.
    """
    _require_filled(work, {folder: record})
    bank: np.memmap[Any, Any] = np.load(folder / "features.npy", mmap_mode="r")
    return bank


def _require_filled(work: Work, banks: Mapping[Path, Mapping[str, object]]) -> None:
    """Fill the banks that are not whole, by one pass of the backbone for all of them.

    Args:
        work: what is extracted from what.
        banks: the folder of each of the work's features, in sorted order, with what is recorded there of it.
    """
    n, named = len(work.images), {"images": work.images.name, "checkpoint": work.checkpoint.name}
    if _missing(banks, n):
        with _in_turn(banks):
            targets = dict(zip(banks, work.targets, strict=True))
            missing = _missing(banks, n)
            if missing:
                fill(missing, replace(work, targets=tuple(targets[folder] for folder in missing)))
            for folder in missing:
                _finish(folder, {**named, **banks[folder], "targets": targets[folder]})


def bank_key(
    checkpoint_id: str,
    images: Images,
    transform: EvalTransform,
    targets: tuple[str, ...],
    precision: Precision = "fp32",
) -> str:
    """The name of the folder of a bank in the cache."""
    other = [] if precision == "fp32" else [precision]
    return fingerprint([checkpoint_id, images.fingerprint, transform, targets, *other])


def plan(
    checkpoint: Checkpoint,
    images: ImageSet,
    transform: EvalTransform,
    features: Sequence[str],
    cache: Path,
    precision: Precision = "fp32",
) -> list[str]:
    """What `extract_all` would do and how long that would take, by the speed of a few images."""
    if isinstance(images, GivenFeatures):
        return []
    lines, missing = [], {}
    for feature in features:
        target = checkpoint.architecture.targets(feature)
        key = bank_key(checkpoint.id, images, transform, target, precision)
        if is_whole(cache / key, len(images)):
            lines.append(f"features {feature} of {images.name}: {len(images):,} images, in the cache")
        else:
            missing[feature] = target
    if not missing:
        return lines
    work = Work(checkpoint, images, transform, tuple(missing.values()), precision)
    takes = measured(work)
    rate = takes.images_per_second * dist.world_size()
    gigabytes = bank_bytes(len(images), sum(map(checkpoint.architecture.width, missing.values()))) / 1e9
    what = f"features {', '.join(missing)} of {images.name}: {len(images):,} images, {gigabytes:.2f} GB on disk"
    batches, network = work.loader_bytes / 1e9, takes.bytes / 1e9
    memory = f"up to {batches:.1f} GB of memory for batches and {network:.1f} GB (on a GPU: its own) for the network"
    return [*lines, f"{what}, {memory}, about {duration(len(images) / rate)} at {rate:.0f} images/s"]


def plan_bank(work: Work, folder: Path, what: str, numbers: int, noun: str = "images") -> str:
    """What filling the bank in `folder` takes, in a line that begins with `what`; an image has `numbers` in float32."""
    count = len(work.images)
    if is_whole(folder, count):
        return f"{what}, in the cache"
    rate = measured(work).images_per_second * dist.world_size()
    gigabytes = bank_bytes(count, numbers) / 1e9
    return f"{what}, {gigabytes:.2f} GB on disk, about {duration(count / rate)} at {rate:.0f} {noun} a second"


def bank_bytes(images: int, width: int) -> int:
    """The size on disk of the features of `images` images, in float32."""
    return 4 * images * width


def is_whole(folder: Path, n: int) -> bool:
    """Whether the bank is done and its file is as long as it must be."""
    if not (folder / "done.json").exists():
        return False
    try:
        return len(np.load(folder / "features.npy", mmap_mode="r")) == n
    except (OSError, ValueError):
        for name in ("done.json", FILLED):
            (folder / name).unlink(missing_ok=True)
        return False


def _missing(folders: Iterable[Path], n: int) -> list[Path]:
    """Which of the banks are not whole, as the first process sees it."""
    return dist.agreed([folder for folder in folders if not is_whole(folder, n)])


@contextmanager
def _in_turn(folders: Iterable[Path]) -> Iterator[None]:
    """One job at a time: the first of its processes waits for other jobs, its others wait for it.

    All jobs take `folders` in the same order, or two could wait for each other.
    """
    with ExitStack() as stack:
        if dist.rank() == 0:
            for folder in folders:
                stack.enter_context(alone_in(folder, wait=True))
        dist.wait_for_all()
        yield


def _finish(folder: Path, record: Mapping[str, object]) -> None:
    """Say that the bank is whole, when every process has filled its part."""
    dist.wait_for_all()
    if dist.rank() == 0:
        first = np.load(folder / "features.npy", mmap_mode="r")[:ROWS_COMPARED]
        if len(first) > 1 and (first == first[0]).all():
            of = ", ".join(f"{name} {value}" for name, value in record.items())
            print(f"warning: features of all images are equal ({of}): did training collapse?", file=sys.stderr)
        write_text(folder / "done.json", json.dumps(record))
        (folder / FILLED).unlink()
    dist.wait_for_all()
