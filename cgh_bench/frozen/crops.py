"""Random crops of labelled images in batches, epoch after epoch.

Which images a batch has, and how each is cropped, is a function of the seed, the epoch and the image alone: the same
for any number of processes and workers, and after an interruption.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cgh_bench.core import dist
from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import ImageSet, workers
from cgh_bench.data.transform import Crop, EvalTransform

ORDER, CROP = range(2)
"""Independent streams of random numbers under one seed."""

Rows = NDArray[np.int64]


@contextmanager
def drawn_by(*numbers: int) -> Iterator[None]:
    """Within, a crop depends on these numbers alone; the global generator is as before afterwards."""
    state = np.random.SeedSequence([*numbers]).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(state[0]))
        yield


class Batch(NamedTuple):
    """The part of a batch that is this process's."""

    images: Tensor
    """(B, 3, H, W) in [0, 1]"""
    labels: Tensor
    """(B,)"""
    total: int
    """Images of all processes together; the last of their parts repeat the first image where it does not divide."""


class Cropping(Protocol):
    """A random part of an image; see `Crop`."""

    @property
    def size(self) -> int:
        """Pixels of its side."""
        ...

    def __call__(self, image: Tensor) -> Tensor:
        """`image` (3, H, W) uint8 to (3, size, size) float32 in [0, 1], drawing from torch's global generator."""
        ...


@dataclass(frozen=True)
class Batches:
    """What the epochs of a training see."""

    images: ImageSet
    rows: Rows
    """Which of the images are trained on."""
    crop: Cropping
    size: int
    """Images of a batch, all processes together. An epoch's last batch is what is left."""
    seed: int
    steps: int = 0
    """Batches of an epoch, all full: it begins where the last one ended, pass after pass; 0: an epoch is one pass."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"batch_size {self.size} must be at least 1")

    def __len__(self) -> int:
        return self.steps or math.ceil(self._length / self.size)

    @property
    def _length(self) -> int:
        """Images of an epoch. A last batch of one image, which BatchNorm cannot take, is left out of it."""
        return len(self.rows) - (len(self.rows) > self.size > 1 and len(self.rows) % self.size == 1)

    def epoch(self, number: int, device: torch.device) -> Iterator[Batch]:
        """The batches of an epoch; each image once, unless `steps` says how long it is.

        Raises:
            UserError: an image cannot be read.
        """
        length = self.steps * self.size or self._length
        seen = self._drawn(number * length, length) if self.steps else self._pass(number)[:length]
        chunks = [seen[start : start + self.size] for start in range(0, length, self.size)]
        processes = workers(self.images, 3 * 4 * self.crop.size**2 * self.size, len(chunks))
        yield from itertools.starmap(Batch, loaded(self._example, chunks, processes, device))

    def _example(self, index: int) -> tuple[Tensor, Tensor]:
        """The crop and the label of an image in a pass; see `_pass`."""
        number, row = divmod(index, len(self.images))
        image = self.images.image(row)
        with drawn_by(self.seed, CROP, number, row):
            return self.crop(image), torch.tensor(int(self.images.labels[row]))

    def _pass(self, number: int) -> Rows:
        """A pass over the rows in random order, as numbers that say the pass too: `number * len(images) + row`."""
        order = np.random.default_rng([self.seed, ORDER, number]).permutation(len(self.rows))
        return number * len(self.images) + self.rows[order]

    def _drawn(self, start: int, count: int) -> Rows:
        """`count` numbers of the endless sequence of passes, from place `start`."""
        first, last = start // len(self.rows), (start + count - 1) // len(self.rows)
        passes = np.concatenate([self._pass(number) for number in range(first, last + 1)])
        return passes[start - first * len(self.rows) :][:count]


def loaded(
    draw: Callable[[int], tuple[Tensor, Tensor]], chunks: Sequence[Rows], processes: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """The part of each batch that is this process's, on its device: inputs, truth, and the size of the whole batch.

    Args:
        draw: the input and the truth of an example, by its number.
        chunks: the numbers of each batch.
        processes: how many load.
        device: where the batches go.

    Raises:
        UserError: `draw` raised it.
    """
    loader = DataLoader(
        _Drawn(draw),
        batch_sampler=[_share_of(chunk) for chunk in chunks],
        num_workers=processes,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    for chunk, batch in zip(chunks, loader, strict=True):
        if isinstance(batch, str):
            raise UserError(batch)
        inputs, truth = (part.to(device, non_blocking=True) for part in batch)
        yield inputs, truth, len(chunk)


def _share_of(chunk: Rows) -> list[int]:
    """The rows of a batch that are this process's: equally many for each, so the last may repeat the first row."""
    each = math.ceil(len(chunk) / dist.world_size())
    padded = itertools.chain(chunk.tolist(), itertools.repeat(int(chunk[0])))
    return list(itertools.islice(padded, dist.rank() * each, (dist.rank() + 1) * each))


class _Drawn(Dataset["tuple[Tensor, Tensor] | str"]):
    """Examples, or why one cannot be drawn (an error that is raised in a loader process loses its kind)."""

    def __init__(self, draw: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        self.draw = draw

    def __getitem__(self, number: int) -> "tuple[Tensor, Tensor] | str":
        try:
            return self.draw(number)
        except UserError as error:
            return str(error)


def _collate(items: "list[tuple[Tensor, Tensor] | str]") -> tuple[Tensor, Tensor] | str:
    """Inputs and truth of a batch, or why its first unusable example cannot be drawn."""
    for item in items:
        if isinstance(item, str):
            return item
    inputs, truth = zip(*items, strict=True)
    return torch.stack(inputs), torch.stack(truth)


SEED = 0
"""The crops are part of the data: drawn once, so that every run finds their features in the cache."""


@dataclass(frozen=True, eq=False)
class Views(ImageSet):
    """View `v` of image `i` of `whole` (N) is number `v N + i`; view 0 is the image as `transform` leaves it."""

    whole: ImageSet
    transform: EvalTransform
    crop: Crop

    @property
    def fingerprint(self) -> str:
        """The hash of the whole set and how its views are made."""
        count = len(self) // len(self.whole) - 1
        return fingerprint([self.whole.fingerprint, self.transform, self.crop, count])

    def image(self, index: int) -> Tensor:
        """One view, (3, H, W) uint8."""
        view, row = divmod(index, len(self.whole))
        image = self.whole.image(row)
        if view == 0:
            return self.transform.cut(image)
        with drawn_by(SEED, CROP, view, row):
            return self.crop.cut(image)

    def called(self, index: int) -> str:
        """The image, and which view."""
        view, row = divmod(index, len(self.whole))
        return f"{self.whole.called(row)}, view {view}"


def with_crops(images: ImageSet, transform: EvalTransform, crop: Crop, count: int) -> Views:
    """`images` (N) with `count` random crops of each, N (1 + count) in all.

    Raises:
        UserError: the crops are of another size than the image under `transform`.
    """
    side = tuple(transform.cut(images.image(0)).shape[1:])
    if side != (crop.size, crop.size):
        raise UserError(
            f"crops of {crop.size}x{crop.size} pixels do not match images of {side[0]}x{side[1]}; set crop.size or the "
            "transform"
        )
    return Views(
        f"{images.name} in {1 + count} views",
        images.classes,
        np.tile(images.labels, 1 + count),
        images,
        transform,
        crop,
    )


def in_all_views(rows: NDArray[np.int64], images: int, count: int) -> NDArray[np.int64]:
    """The numbers of all views of the `rows` (R,) of a set of `images` images: (R (1 + count),), ascending."""
    return (images * np.arange(1 + count)[:, None] + rows).ravel()
