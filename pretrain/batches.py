"""The batches of a run: the images and views of step `n` depend on the seed and `n` alone.

So a run can resume at any step, in the middle of an epoch too, and worker processes need no state.
"""

import signal
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cgh_bench.core import dist
from cgh_bench.core.ahead import ahead
from cgh_bench.core.errors import UserError
from cgh_bench.data import ImageSet
from cgh_bench.data.image_set import workers
from cgh_bench.pretrain.augmentation import Cut
from cgh_bench.pretrain.recipe import Recipe

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What tells a run to save and end: Ctrl-C, a cluster's queue, a closed terminal."""
ORDER, VIEWS = range(2)
"""Independent streams of random numbers from one seed."""


def steps_per_epoch(recipe: Recipe, images: ImageSet) -> int:
    """Whole batches in the data; an epoch drops the images that are left over.

    Raises:
        UserError: the data holds less than one batch.
    """
    if recipe.batch_size > len(images):
        raise UserError(
            f"batch_size {recipe.batch_size} is larger than {images.name} with {len(images)} images; "
            f"set batch_size={len(images)} or lower"
        )
    return len(images) // recipe.batch_size


class Batch(NamedTuple):
    """The input of one process in one step."""

    views: Sequence[Tensor | Cut]
    """One (B, 3, H, W) tensor in [0, 1] per augmentation, or what it is made of; none if too many files could not be
    read."""
    labels: Tensor
    """Labels of the images: classes (B,) int64, or whatever the dataset has."""
    corrupt: list[str]
    """The error of each file that could not be read; the next readable image replaces it."""


class Batches(Dataset[Batch]):
    """Item `n` is the batch of step `n`; for a GPU, which finishes views faster, they are only cut."""

    def __init__(self, recipe: Recipe, images: ImageSet, for_gpu: bool = False) -> None:
        self.recipe, self.images, self.for_gpu = recipe, images, for_gpu
        self.per_epoch = steps_per_epoch(recipe, images)
        self.rows = dist.block(recipe.batch_size)

    @property
    def bytes(self) -> int:
        """Bytes of the views of a batch that this process has."""
        each: int = self.rows.stop - self.rows.start
        return each * sum(3 * (1 if self.for_gpu else 4) * view.size**2 for view in self.recipe.views.augments)

    def __len__(self) -> int:
        return self.per_epoch * self.recipe.epochs

    def __getitem__(self, step: int) -> Batch:
        epoch, number = divmod(step, self.per_epoch)
        seed, size = self.recipe.seed, self.recipe.batch_size
        chosen = _order(seed, epoch, len(self.images))[number * size :][self.rows]
        corrupt: dict[str, None] = {}
        read = [found for index in chosen.tolist() if (found := self._readable(index, corrupt))]
        if len(read) < len(chosen):
            return Batch([], torch.empty(0), list(corrupt))  # an error in a loader process would lose its kind
        images, labels = zip(*read, strict=True)
        generators = [_generator(seed, VIEWS, step, view) for view in range(len(self.recipe.views.augments))]
        views = self.recipe.views(images, generators, self.rows, finish=not self.for_gpu)
        return Batch(views, torch.from_numpy(np.stack(labels)), list(corrupt))

    def _readable(self, index: int, corrupt: dict[str, None]) -> tuple[Tensor, NDArray[np.int64]] | None:
        """The image `index` with its label, or the next that can be read; None beyond the limit of `corrupt` ones."""
        for at in range(index, index + len(self.images)):
            if len(corrupt) > self.recipe.corrupt_limit:
                break
            try:
                return self.images.image(at % len(self.images)), np.asarray(self.images.labels[at % len(self.images)])
            except UserError as error:
                corrupt[str(error)] = None
        return None


def too_many(corrupt: Collection[str]) -> UserError:
    """The error for data with too many unreadable files."""
    return UserError(
        f"{len(corrupt)} files cannot be read, the last: {next(reversed([*corrupt]))}; "
        "fix them, or raise corrupt_limit and start again"
    )


def loader(batches: Batches, start: int) -> Iterator[Batch]:
    """The batches from step `start` on, made ahead: by worker processes that decode files, of images in memory by a
    thread.
    """
    made = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers(batches.images, batches.bytes, len(batches) - start),
        worker_init_fn=_ignore_stop_signals,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # seeds the workers; the global generator would not be resumable
    )
    return iter(made) if made.num_workers else ahead(made)


def _ignore_stop_signals(worker: int) -> None:
    """Stop signals reach all processes of a job; the run, which finishes its step and saves, still needs this one."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, n: int) -> Tensor:
    """The order (N,) of the images in an epoch."""
    return torch.randperm(n, generator=_generator(seed, ORDER, epoch))


def _generator(*key: int) -> torch.Generator:
    """A generator seeded by all of `key`, without the correlations between neighbouring integer seeds."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
