"""Filling banks of features on disk: each process a part of the images, in any number of sessions."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import to_dtype

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core import dist
from cgh_bench.core.ahead import ahead
from cgh_bench.core.device import Precision, arithmetic, pick_device, resources
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.progress import progress
from cgh_bench.data.image_set import Images, workers
from cgh_bench.data.transform import EvalTransform
from cgh_bench.networks.base import Backbone

FILLED = "filled.npy"
"""Beside the bank while it is being filled: which rows are."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class BankFile:
    """A bank whose rows appear one by one."""

    features: "np.memmap[Any, Any]"
    """(N, D)"""
    filled: "np.memmap[Any, Any]"
    """(N,) which rows are on disk."""
    waiting: list[Rows] = field(default_factory=list)
    """Rows that were written and may not be on disk yet."""

    def write(self, rows: Rows, values: NDArray[np.float32]) -> None:
        """Fill the `rows` with `values` (R, D)."""
        self.features[rows] = values
        self.waiting.append(rows)

    def save(self) -> None:
        """Say that the rows written so far are filled, after they are."""
        self.features.flush()
        for rows in self.waiting:
            self.filled[rows] = True
        self.filled.flush()
        self.waiting.clear()


def open_bank(folder: Path, n: int, dim: int) -> BankFile:
    """The bank (N, D) in `folder`, made where there is none; every process must call this.

    Raises:
        UserError: no room on the disk.
    """
    features, filled = folder / "features.npy", folder / FILLED
    if dist.rank() == 0 and not filled.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _allocate(features, np.float32, (n, dim))
        _allocate(filled, np.bool_, (n,))
    dist.wait_for_all()
    return BankFile(np.load(features, mmap_mode="r+"), np.load(filled, mmap_mode="r+"))


def _allocate(path: Path, kind: type, shape: tuple[int, ...]) -> None:
    """An array of zeros on disk, which appears under its name when it is all there."""
    temporary = path.with_suffix(".part")
    try:
        open_memmap(temporary, mode="w+", dtype=kind, shape=shape)  # type: ignore[no-untyped-call]
        with temporary.open("rb+") as file:  # a full disk must be an error here, not a bus error later
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        size = f"{math.prod(shape) * np.dtype(kind).itemsize / 1e9:.1f} GB"
        raise UserError(
            f"no space for {size} in {path.parent} ({error.strerror}); free some, or choose another --work"
        ) from None
    temporary.replace(path)


BATCH_SIZE = 256
"""Images at a time, unless fewer or more are asked for."""
BATCHES_PER_SAVE = 32
MOST_NAMED = 20
"""The number of unusable images that one message names, and after which the extraction stops."""


@dataclass(frozen=True)
class Work:
    """What is extracted from what."""

    checkpoint: Checkpoint
    images: Images
    transform: EvalTransform
    targets: tuple[tuple[str, ...], ...]
    """The parts of each feature, all of which one pass of the backbone gives."""
    precision: Precision = "fp32"

    @property
    def batch_size(self) -> int:
        """Images at a time: one where the transform gives them different sizes."""
        most = resources().batch_size or BATCH_SIZE
        return 1 if self.transform.longest else min(most, max(1, len(self.images)))

    @property
    def batch_bytes(self) -> int:
        """Bytes of one batch of the loader."""
        return self.batch_size * self.transform.bytes

    @property
    def loader_bytes(self) -> int:
        """Bytes of all its batches: two of each process, and the one in use."""
        return (2 * self.processes(len(self.images)) + 1) * self.batch_bytes

    def processes(self, images: int) -> int:
        """The number of processes that read `images` of the images."""
        return workers(self.images, self.batch_bytes, math.ceil(images / self.batch_size))

    def widths(self, backbone: Backbone) -> list[int]:
        """D of each of the features."""
        return [backbone.width(target) for target in self.targets]

    def forward(self, backbone: Any, batch: Tensor) -> list[Tensor]:
        """Each of the features, (B, D) float32, of a batch (B, 3, H, W) uint8 on the device."""
        with arithmetic(self.precision, batch.device):
            inputs = self.checkpoint.preprocessing(to_dtype(batch, torch.float32, scale=True))
            found = self.compute(backbone, inputs.contiguous(memory_format=layout(batch.device)))
        return [features.float() for features in found]

    def compute(self, backbone: Any, inputs: Tensor) -> list[Tensor]:
        """Each of the features of a preprocessed batch (B, 3, H, W)."""
        return backbone.pooled_all(inputs, self.targets)


def layout(device: torch.device) -> torch.memory_format:
    """How images and filters lie in memory where the device's convolutions are fastest."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def fill(folders: Sequence[Path], work: Work) -> None:
    """Compute the rows of the banks that earlier sessions have not; every process must call this.

    Args:
        folders: of the banks, one for each of the work's features.
        work: what is extracted.

    Raises:
        UserError: images that cannot be used, or whose features are not finite; each is named, up to `MOST_NAMED`. The
            other rows are kept.
        CheckFailed: the backbone has moved.
    """
    device = pick_device()
    backbone = work.checkpoint.backbone().to(device).to(memory_format=layout(device))
    widths = work.widths(backbone)
    banks = [open_bank(folder, len(work.images), width) for folder, width in zip(folders, widths, strict=True)]
    mine = dist.share(len(work.images))
    todo = np.flatnonzero(~np.all([bank.filled[mine] for bank in banks], axis=0)) + mine.start
    faults = Faults(work.images)
    title = f"features of {work.images.name}" + (f", process {dist.rank()}" if dist.world_size() > 1 else "")
    try:
        with torch.inference_mode(), progress(title, mine.stop - mine.start) as tick:
            for number, (start, batch, fetched) in enumerate(_computed(work, backbone, todo, device), start=1):
                faults.unusable += batch.refused
                if batch.usable:
                    usable = todo[start : start + work.batch_size][batch.usable]
                    values = [features.numpy() for features in fetched()]
                    finite = np.all([np.isfinite(features).all(axis=1) for features in values], axis=0)
                    for bank, features in zip(banks, values, strict=True):
                        bank.write(usable[finite], features[finite])
                    faults.not_finite += map(work.images.called, usable[~finite].tolist())
                tick(mine.stop - mine.start - len(todo) + min(start + work.batch_size, len(todo)))
                if number % BATCHES_PER_SAVE == 0:
                    _save(banks)
                if faults.enough():
                    break
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"batch size {work.batch_size} does not fit into this GPU's memory; set --batch-size "
            f"{max(1, work.batch_size // 2)}"
        ) from None
    finally:  # also when interrupted
        _save(banks)
    faults.require_none()
    try:
        require_frozen(work.checkpoint, backbone)
    except CheckFailed:
        for folder in folders:
            (folder / FILLED).unlink(missing_ok=True)  # none of the rows is to be trusted
        raise


def _computed(
    work: Work, backbone: Backbone, rows: Rows, device: torch.device
) -> Iterator[tuple[int, "_Batch", Callable[[], list[Tensor]]]]:
    """Each batch with its start and what waits for its features; by then the device has the next batch to work on."""
    before = None
    for start, batch in _batches(work, rows):
        found = work.forward(backbone, batch.pixels.to(device, non_blocking=True)) if batch.usable else []
        if before:
            yield before
        before = start, batch, dist.fetch(found)
    if before:
        yield before


def _save(banks: Sequence[BankFile]) -> None:
    for bank in banks:
        bank.save()


def require_usable(work: Work) -> None:
    """Read every image once, before long work that needs them only later; every process must call this.

    Raises:
        UserError: images that cannot be used; each is named, up to `MOST_NAMED`.
    """
    faults, mine = Faults(work.images), dist.share(len(work.images))
    for _, batch in _batches(work, np.arange(mine.start, mine.stop)):
        faults.unusable += batch.refused
        if faults.enough():
            break
    faults.unusable = list(chain.from_iterable(dist.gather_shares(faults.unusable)))
    faults.require_none()


@dataclass
class Faults:
    """Images that there are no features of."""

    images: Images
    unusable: list[str] = field(default_factory=list)
    """Why, one line each."""
    not_finite: list[str] = field(default_factory=list)
    """What they are called."""

    def enough(self) -> bool:
        """Whether it is time to stop."""
        return len(self.unusable) >= MOST_NAMED or len(self.not_finite) >= MOST_NAMED

    def require_none(self) -> None:
        """Name them all."""
        more = " or more" if self.enough() else ""
        if self.unusable:
            named = " | ".join(self.unusable[:MOST_NAMED])
            count = f"{len(self.unusable)}{more} images of {self.images.name} cannot be used: "
            raise UserError(named if len(self.unusable) == 1 else count + named)
        if self.not_finite:
            raise UserError(
                f"the features of {self.images.name} are not finite for {len(self.not_finite)}{more} images "
                f"({', '.join(self.not_finite[:MOST_NAMED])}); the weights or the preprocessing are broken: see "
                "`cgh-bench inspect`"
            )


@dataclass(frozen=True)
class _Batch:
    pixels: Tensor
    """(B', 3, H, W) uint8 of the usable images."""
    usable: list[int]
    """Their places in the batch."""
    refused: list[str]
    """Why the others are not."""

    def pin_memory(self) -> "_Batch":
        """Pin the pixels; DataLoader calls this on a batch of an unknown class."""
        return _Batch(self.pixels.pin_memory(), self.usable, self.refused)


class Transformed(Dataset["Tensor | str"]):
    """The images `rows`, transformed but still uint8, a quarter of what would be copied between processes and devices.

    Or why one cannot be: an error in a loader process would lose its kind.
    """

    def __init__(self, work: Work, rows: Rows) -> None:
        self.work, self.rows = work, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> "Tensor | str":
        try:
            return self.work.transform.cut(self.work.images.image(int(self.rows[index])))
        except UserError as error:
            return str(error)


def _batches(work: Work, rows: Rows) -> Iterator[tuple[int, _Batch]]:
    """Each batch with the place of its first image among `rows`; the next is read meanwhile."""
    loader = DataLoader(
        Transformed(work, rows),
        work.batch_size,
        num_workers=work.processes(len(rows)),
        collate_fn=collate,
        pin_memory=pick_device().type == "cuda",
    )
    batches = loader if loader.num_workers else ahead(loader)
    for number, batch in enumerate(batches):
        yield number * work.batch_size, batch


def collate(items: "list[Tensor | str]") -> _Batch:
    """The usable images as one tensor; under a transform that keeps sizes they must all be of one."""
    images = {place: item for place, item in enumerate(items) if isinstance(item, Tensor)}
    refused = [item for item in items if isinstance(item, str)]
    sizes = sorted({tuple(image.shape[1:]) for image in images.values()})
    if len(sizes) > 1:
        least, most = (f"{width}x{height}" for height, width in (sizes[0], sizes[-1]))
        crop = min(min(size) for size in sizes)
        refused.append(
            f"the task does not resize, but images differ in size ({least}, {most}); use a task that resizes (knn, "
            f"linear), or --set transform.resize={crop} --set transform.crop={crop}"
        )
        images = {}
    pixels = torch.stack(list(images.values())) if images else torch.empty(0)
    return _Batch(pixels, list(images), refused)


def require_frozen(checkpoint: Checkpoint, backbone: torch.nn.Module) -> None:
    """Prove that neither a weight nor a BatchNorm statistic has moved.

    Raises:
        CheckFailed: which has.
    """
    for key, tensor in backbone.state_dict().items():
        if not torch.equal(_bytes(tensor.cpu()), _bytes(checkpoint.weights[key])):
            raise CheckFailed(f"{checkpoint.name}: {key} changed; the backbone must stay frozen")


def _bytes(tensor: Tensor) -> Tensor:
    """The tensor as bytes, among which even NaN equals itself."""
    return tensor.reshape(-1).view(torch.uint8)
