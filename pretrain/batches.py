"""The batches of a run: which images and which views step `n` has is a function of the seed and `n` alone.

So a run can go on at any step, in the middle of an epoch too, and worker processes need no state.
"""

import signal
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cgh_bench.core import dist
from cgh_bench.core.errors import UserError
from cgh_bench.data import ImageSet
from cgh_bench.data.image_set import workers
from cgh_bench.pretrain.recipe import Recipe

ORDER, VIEWS = range(2)
"""Independent streams of random numbers under one seed."""


def steps_per_epoch(recipe: Recipe, images: ImageSet) -> int:
    """Whole batches in the data; the rest of an epoch's order is dropped.

    Raises:
        UserError: the data holds less than one batch.
    """
    if recipe.batch_size > len(images):
        raise UserError(
            f"batch_size {recipe.batch_size} is larger than {images.name} with its {len(images)} images; "
            f"set batch_size={len(images)} or lower"
        )
    return len(images) // recipe.batch_size


class Batch(NamedTuple):
    """What a process sees in one step."""

    views: list[Tensor]
    """One (B, 3, H, W) tensor in [0, 1] for each augmentation; none where too many files could not be read."""
    labels: Tensor
    """Classes (B,) int64, or as the data have them."""
    corrupt: list[str]
    """What is wrong with each file that could not be read; the next readable image stands in its place."""


class Batches(Dataset[Batch]):
    """Item `n` is the batch of step `n`."""

    def __init__(self, recipe: Recipe, images: ImageSet) -> None:
        self.recipe, self.images = recipe, images
        self.per_epoch = steps_per_epoch(recipe, images)
        self.rows = dist.block(recipe.batch_size)

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
        views = self.recipe.views(images, generators, self.rows)
        return Batch(views, torch.from_numpy(np.stack(labels)), list(corrupt))

    def _readable(self, index: int, corrupt: dict[str, None]) -> tuple[Tensor, NDArray[np.int64]] | None:
        """The image `index` with its label, or the next that can be read; none beyond the limit of `corrupt` ones."""
        for at in range(index, index + len(self.images)):
            if len(corrupt) > self.recipe.corrupt_limit:
                break
            try:
                return self.images.image(at % len(self.images)), np.asarray(self.images.labels[at % len(self.images)])
            except UserError as error:
                corrupt[str(error)] = None
        return None


def too_many(corrupt: Collection[str]) -> UserError:
    """The refusal of data with too many unreadable files."""
    return UserError(
        f"{len(corrupt)} files cannot be read, the last: {next(reversed([*corrupt]))}; "
        "mend them, or raise corrupt_limit and start anew"
    )


def loader(batches: Batches, start: int) -> DataLoader[Batch]:
    """The batches from step `start` on; files are decoded in worker processes, images in memory are not worth one."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers(batches.images),
        worker_init_fn=_hear_no_stop,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # it seeds workers, from the global generator unless told otherwise: not resumable
    )


def _hear_no_stop(worker: int) -> None:
    """Signals to stop come to all processes of a job; the run, which then saves, still needs this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, n: int) -> Tensor:
    """The order (N,) of the images in an epoch."""
    return torch.randperm(n, generator=_generator(seed, ORDER, epoch))


def _generator(*key: int) -> torch.Generator:
    """A generator seeded by all of `key`, without the correlations of neighbouring plain seeds."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
