"""Heads on the maps of a frozen backbone: BatchNorm and a linear layer at every patch ("BNHead"), trained by AdamW.

Features are cached where each example looks the same every time it is seen, else computed for every batch. A head sees
the whole batch on every process, so that several processes train what one would.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn

from cgh_bench.core import dist, saved
from cgh_bench.core.descent import HeadTraining
from cgh_bench.core.files import replacing
from cgh_bench.core.progress import progress
from cgh_bench.data.image_set import Images, workers
from cgh_bench.frozen.crops import drawn_by, loaded
from cgh_bench.frozen.map_losses import as_maps
from cgh_bench.frozen.patches import Grid, LiveMaps, Patches
from cgh_bench.frozen.training import Course, Record, train

ORDER, VIEW, DROPOUT = range(2, 5)
"""Independent streams of random numbers under one seed."""
LEGS = 20
"""How often a training is saved: the greatest common divisor of this and its iterations."""
DEVIATION = 0.01
"""The standard deviation of the initial weights."""


class Objective(NamedTuple):
    """What a head is for."""

    channels: int
    """C outputs at each patch."""
    loss: Callable[[Tensor, Tensor, Grid, int], Tensor]
    """The loss () of outputs (B, P, C) for patches of this grid against the truth (B, H, W, …) in this step."""


class MapBatch(NamedTuple):
    """The part of a batch that is this process's."""

    inputs: Tensor
    """(B, P, D) or (B, 3, H, W)."""
    truth: Tensor
    """(B, H, W) or (B, H, W, …)"""
    total: int
    """Images of all processes together; parts repeat the first image where it does not divide."""


@dataclass(frozen=True)
class Cached:
    """Examples whose patches are on disk: each image as it is, every time that it is seen."""

    patches: Patches
    truth: NDArray[Any]
    """(N, H, W) or (N, H, W, …)"""

    @property
    def grid(self) -> Grid:
        """The patches of each."""
        return self.patches.grid

    @property
    def width(self) -> int:
        """D."""
        return self.patches.features.shape[1]

    def __len__(self) -> int:
        return len(self.truth)

    def example(self, row: int) -> tuple[Tensor, Tensor]:
        """The features of an image's patches (P, D), and its truth (H, W) or (H, W, …)."""
        return torch.tensor(self.patches.of_image(row)), torch.from_numpy(np.array(self.truth[row]))

    def features(self, inputs: Tensor) -> Tensor:
        """The features of the patches (B, P, D) of a batch: its inputs."""
        return inputs

    def processes(self, batch_size: int, batches: int) -> int:
        """The number of processes that load examples: none, because nothing is decoded."""
        return 0


class Annotated(Images, Protocol):
    """Images with something known of each pixel."""

    def both(self, index: int) -> tuple[Tensor, NDArray[Any]]:
        """An image (3, H, W) uint8 and what is known, (H, W) or (H, W, …)."""
        ...


def truth_on_disk(images: Annotated, folder: Path) -> NDArray[Any]:
    """What is known of each image, (N, H, W, …), memory-mapped from a file in `folder`; all must be of one size.

    The first process writes it, unless it is there.
    """
    path = folder / f"truth-{images.fingerprint}.npy"
    if dist.rank() == 0 and not path.exists():
        first = images.both(0)[1]
        with replacing(path) as temporary, progress(f"pixels of {images.name}", len(images)) as tick:
            kept = open_memmap(temporary, "w+", first.dtype, (len(images), *first.shape))  # type: ignore[no-untyped-call]
            for index in range(len(images)):
                kept[index] = images.both(index)[1]
                tick(index + 1)
            kept.flush()
    dist.wait_for_all()
    return np.load(path, mmap_mode="r")


View = Callable[[Tensor, NDArray[Any]], tuple[Tensor, NDArray[Any]]]
"""What is made of an image and its truth; may draw from torch's global generator."""


@dataclass(frozen=True)
class Computed:
    """Examples of images that may look different each time; the backbone sees every batch. See `Cached`."""

    live: LiveMaps
    images: Annotated
    view: View
    """Its results are all of `size`."""
    size: tuple[int, int]
    """Height and width, multiples of the side of a patch."""

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned loader process gets: all but the backbone."""
        return {**self.__dict__, "live": None}

    @property
    def grid(self) -> Grid:
        """See `Cached`."""
        return self.live.grid(*self.size)

    @property
    def width(self) -> int:
        """See `Cached`."""
        return self.live.width

    def __len__(self) -> int:
        return len(self.images)

    def example(self, row: int) -> tuple[Tensor, Tensor]:
        """A view of an image (3, H, W) uint8 and of its truth, drawn from torch's global generator."""
        image, truth = self.view(*self.images.both(row))
        return image.contiguous(), torch.from_numpy(np.ascontiguousarray(truth))

    def features(self, inputs: Tensor) -> Tensor:
        """The backbone's features of the patches (B, P, D) of a batch of images."""
        return self.live.features(inputs)

    def processes(self, batch_size: int, batches: int) -> int:
        """The number of processes that load examples."""
        return workers(self.images, batch_size * self.size[0] * self.size[1] * 4, batches)


Examples = Cached | Computed
"""Where a head's examples come from."""


@dataclass(frozen=True)
class _Batches:
    """An endless series of examples, each as often as the others, cut into the batches of each leg of a training."""

    examples: Examples
    training: HeadTraining
    seed: int

    @property
    def legs(self) -> int:
        """How many there are, all equally long."""
        return math.gcd(self.training.iterations, LEGS)

    def __len__(self) -> int:
        return self.training.iterations // self.legs

    def epoch(self, number: int, device: torch.device) -> Iterator[MapBatch]:
        """The batches of a leg."""
        size = self.training.batch_size
        steps = range(number * len(self), (number + 1) * len(self))
        places = [np.arange(step * size, (step + 1) * size) for step in steps]
        processes = self.examples.processes(size, len(places))
        yield from itertools.starmap(MapBatch, loaded(self._example, places, processes, device))

    def _example(self, place: int) -> tuple[Tensor, Tensor]:
        with drawn_by(self.seed, VIEW, place):
            return self.examples.example(self.row(place))

    def row(self, place: int) -> int:
        """The example at a place of the series: all in random order, then all in another, and so on."""
        round_number, index = divmod(place, len(self.examples))
        return int(_order(self.seed, round_number, len(self.examples))[index])


@lru_cache(maxsize=2)
def _order(seed: int, round_number: int, count: int) -> NDArray[np.int64]:
    """All of `count` examples in the order of a round."""
    return np.random.default_rng([seed, ORDER, round_number]).permutation(count)


class DenseHead(nn.Module):
    """BatchNorm and a linear layer at every patch; BatchNorm's statistics are those of all patches of a batch."""

    def __init__(self, width: int, channels: int, dropout: float, seed: int) -> None:
        super().__init__()
        self.norm, self.linear, self.dropout = nn.BatchNorm1d(width), nn.Linear(width, channels), dropout
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.linear.weight.normal_(0, DEVIATION, generator=generator)
            self.linear.bias.zero_()

    def forward(self, features: Tensor, draw: torch.Generator | None = None) -> Tensor:
        """Features of patches (B, P, D) to outputs (B, P, C); with `draw`, channels of each image are left out."""
        if draw and self.dropout:
            kept = torch.rand(len(features), 1, features.shape[2], generator=draw) >= self.dropout
            features = features * (kept.to(features.device) / (1 - self.dropout))
        flat = self.norm(features.flatten(0, 1))
        outputs: Tensor = self.linear(flat)
        return outputs.view(*features.shape[:2], -1)

    @torch.no_grad()
    def maps(self, features: Tensor, grid: Grid) -> Tensor:
        """Features of patches (B, P, D) to maps of outputs (B, C, h, w)."""
        return as_maps(self(features), grid)


class _Learner:
    """A head in training; see `training.Learner`."""

    def __init__(
        self, head: DenseHead, examples: Examples, training: HeadTraining, objective: Objective, seed: int
    ) -> None:
        self.head, self.examples, self.training, self.objective, self.seed = head, examples, training, objective, seed
        self.step, self.losses = 0, list[float]()
        self.optimizer = torch.optim.AdamW(
            head.parameters(), training.rate, training.betas, weight_decay=training.decay
        )

    def learn(self, batch: MapBatch, factor: float) -> float:
        """A step; every process sees the features of all."""
        features = dist.gather(self.examples.features(batch.inputs))[: batch.total]
        truth = dist.gather(batch.truth)[: batch.total]
        state = np.random.SeedSequence([self.seed, DROPOUT, self.step]).generate_state(1, np.uint64)
        draw = torch.Generator().manual_seed(int(state[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.rate * factor
        loss = self.objective.loss(self.head.train()(features, draw), truth, self.examples.grid, self.step)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.training.clip is not None:
            nn.utils.clip_grad_norm_(self.head.parameters(), self.training.clip)
        self.optimizer.step()
        self.step += 1
        self.losses.append(loss.item())
        return self.losses[-1]

    def assess(self) -> Record:
        """The mean loss of the leg."""
        mean, self.losses = float(np.mean(self.losses)), []
        return {"loss": mean, "step": self.step}

    def state_dict(self) -> dict[str, Any]:
        """The state of head and optimiser; the backbone never changes."""
        return {"head": self.head.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Restore `state`."""
        self.head.load_state_dict(state["head"])
        saved.restore(self.optimizer, state["optimizer"])
        self.step = state["step"]


def train_head(
    examples: Examples, objective: Objective, training: HeadTraining, seed: int, state: Path, identity: str
) -> tuple[DenseHead, list[Record]]:
    """A trained head, in evaluation mode, with the loss of each leg.

    Args:
        examples: what it learns from.
        objective: what it minimises.
        training: how.
        seed: of the first weights, the order, the views and dropout.
        state: where the training is saved, and resumed from.
        identity: the hash of all that the outcome depends on.

    Raises:
        UserError: an image cannot be read, or the loss is not finite.
        CheckFailed: the backbone has changed.
    """
    with dist.process_group() as device:
        head = DenseHead(examples.width, objective.channels, training.dropout, seed).to(device)
        batches = _Batches(examples, training, seed)
        learner = _Learner(head, examples, training, objective, seed)
        course = Course("head on frozen maps", batches.legs, training, identity, state, device)
        history = train(learner, batches, course)
        if isinstance(examples, Computed):
            examples.live.require_frozen()
        return head.eval(), history
