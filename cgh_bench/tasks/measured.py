"""What depth and surface normals share: a head on each patch of the frozen backbone, and a number for every pixel."""

import json
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.config import fingerprint
from cgh_bench.core.descent import HeadTraining
from cgh_bench.core.device import Precision
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing
from cgh_bench.data.measured import MeasuredImages, MeasuredPair, Quantity, Values, load_measured
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.dense import NOT_MADE, SHOWN, MapTask, Upsampling, require_other_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.dense_head import DenseHead, Examples
    from cgh_bench.frozen.patches import Grid, LiveMaps

SHORT_TRAINING = HeadTraining(rate=1e-3, iterations=1_000, warmup=100)


@dataclass(frozen=True)
class MeasuredTask(MapTask[MeasuredPair]):
    """Predict a quantity at every pixel from the feature maps of a frozen backbone."""

    QUANTITY: ClassVar[Quantity]
    CHANNELS: ClassVar[int]

    training: HeadTraining = SHORT_TRAINING
    test: Literal["squashed", "whole"] = "squashed"
    """squashed: resized to a square; whole: padded to a multiple of the patch size."""
    upsampling: Upsampling = "bilinear"
    """How outputs are resized to pixels, in training and testing."""
    precision: Precision = field(default="fp32", kw_only=True)
    """See `FrozenTask`; here part of the id at every value."""

    def load_data(self, cache: Path) -> MeasuredPair:
        """The train and the val images with their maps."""
        return load_measured(self.data, self.QUANTITY, cache)

    def check(self, data: MeasuredPair) -> None:
        """Refuse val images that are the train images."""
        if data.there:
            require_other_images(data.train, data.val)

    @abstractmethod
    def loss(self, outputs: "Tensor", truth: "Tensor", grid: "Grid", step: int) -> "Tensor":
        """The loss () of outputs (B, P, C) for patches of this grid against the truth (B, H, W, …) in this step."""

    @abstractmethod
    def decoded(self, outputs: "Tensor", grid: "Grid", size: tuple[int, int]) -> "Tensor":
        """The predicted values (B, H, W, …) of outputs (B, P, C)."""

    @abstractmethod
    def errors(self, predicted: Values, truth: Values) -> dict[str, float]:
        """Each metric of one image; NaN where no pixel counts."""

    @abstractmethod
    def drawn(self, truth: Values, predicted: Values) -> "list[Image.Image]":
        """Pictures of what is known of an image and of what was predicted, in the same colours."""

    @abstractmethod
    def picture(self, predicted: Values) -> NDArray[np.generic]:
        """What is written of a prediction as a PNG."""

    def plan(self, checkpoint: "Checkpoint", data: MeasuredPair, folders: Folders) -> list[str]:
        """Time and disk of the patches, and the training."""
        if not data.there:
            return [NOT_MADE]
        kept = [data.train, *([data.val] if self.test == "squashed" else [])]
        head = f"head: {self.training.iterations:,} steps of {self.training.batch_size} images on cached patches"
        return [*(self.plan_patches(checkpoint, part, folders) for part in kept), head]

    def run(self, checkpoint: "Checkpoint", data: MeasuredPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed draws the first weights, the order and the views; resumes an interrupted training."""
        from cgh_bench.frozen.dense_head import Objective, train_head
        from cgh_bench.outcomes.base import named_images
        from cgh_bench.outcomes.scores import scores_of

        examples = self.examples(checkpoint, data.train, folders)
        identity = fingerprint([self, checkpoint.id, data.train.fingerprint, seed])
        objective = Objective(self.CHANNELS, self.loss)
        head, history = train_head(examples, objective, self.training, seed, folders.run / "state.pt", identity)
        folders.write("losses.json", json.dumps(history))
        predict = self._predictions(checkpoint, head, data.val, folders)
        every = [self._judged(data.val, index, predict, folders) for index in range(len(data.val))]
        self._draw(data.val, predict, folders)
        images = named_images(data.val.name, [path.stem for path in data.val.paths], data.val.fingerprint)
        found = scores_of(images, self.QUANTITY, {n: np.array([each[n] for each in every]) for n in every[0]})
        folders.keep(found)
        for path in folders.run.glob("truth-*.npy"):
            path.unlink(missing_ok=True)
        return found.metrics()

    def examples(self, checkpoint: "Checkpoint", train: MeasuredImages, folders: Folders) -> "Examples":
        """What the head learns from: cached patches of squashed images."""
        from cgh_bench.frozen.dense_head import Cached, truth_on_disk

        truth = truth_on_disk(Squashed(train, self.size), folders.run)
        return Cached(self.patches(checkpoint, train, folders), truth)

    def _predictions(
        self, checkpoint: "Checkpoint", head: "DenseHead", val: MeasuredImages, folders: Folders
    ) -> "Callable[[int, tuple[int, int]], Values]":
        """What predicts the values of image number i at a size."""
        import torch

        from cgh_bench.frozen.patches import LiveMaps

        if self.test == "whole":
            live = LiveMaps(checkpoint, self.feature, self.precision)
            return lambda index, _: self._whole(live, head, val.image(index))
        patches, head = self.patches(checkpoint, val, folders), head.cpu()

        @torch.no_grad()
        def predict(index: int, size: tuple[int, int]) -> Values:
            outputs = head(torch.tensor(patches.of_image(index))[None])
            return self.decoded(outputs, patches.grid, size)[0].numpy()

        return predict

    def _whole(self, live: "LiveMaps", head: "DenseHead", image: "Tensor") -> Values:
        import torch

        with torch.no_grad():
            features, grid, part = live.padded(image)
            size = grid[0] * live.stride, grid[1] * live.stride
            values: Values = self.decoded(head(features), grid, size)[0][part].cpu().numpy()
        return values

    def _draw(self, val: MeasuredImages, predict: "Callable[[int, tuple[int, int]], Values]", folders: Folders) -> None:
        """`pictures/QUANTITY.png`: images, what is known of them, what was predicted."""
        from cgh_bench.frozen import drawing

        columns = []
        for index in range(min(SHOWN, len(val))):
            image, truth = val.both(index)
            predicted = predict(index, (truth.shape[0], truth.shape[1]))
            columns.append([drawing.picture_of(image), *self.drawn(truth, predicted)])
        rows = [[drawing.tile(each, drawing.NEUTRAL) for each in row] for row in zip(*columns, strict=True)]
        folders.picture(self.QUANTITY, drawing.sheet(rows))

    def _judged(
        self,
        val: MeasuredImages,
        index: int,
        predict: "Callable[[int, tuple[int, int]], Values]",
        folders: Folders,
    ) -> dict[str, float]:
        """The metrics of an image, whose prediction is written."""
        from cgh_bench.core import dist

        truth = val.both(index)[1]
        predicted = predict(index, (truth.shape[0], truth.shape[1]))
        if dist.rank() == 0:
            with replacing(folders.run / self.QUANTITY / f"{index:06d}.png", flush=False) as file:
                Image.fromarray(self.picture(predicted)).save(file)
        errors = self.errors(predicted, truth)
        if not all(map(math.isfinite, errors.values())):
            raise UserError(
                f"{val.called(index)} has no valid pixel: its {self.QUANTITY} is unknown where it is scored, or out of "
                "range (check the unit); remove the image"
            )
        return errors


@dataclass(frozen=True, eq=False)
class Squashed:
    """Images and maps squashed to `size` pixels a side; each pixel of a map is the nearest."""

    whole: MeasuredImages
    size: int
    in_memory: ClassVar = False

    @property
    def name(self) -> str:
        """Dataset and split."""
        return self.whole.name

    @property
    def fingerprint(self) -> str:
        """The hash of the images and the size."""
        return fingerprint([self.whole.fingerprint, self.size])

    def __len__(self) -> int:
        return len(self.whole)

    def called(self, index: int) -> str:
        """The file of image `index`."""
        return self.whole.called(index)

    def image(self, index: int) -> "Tensor":
        """Image `index`, (3, size, size) uint8."""
        return self.both(index)[0]

    def both(self, index: int) -> "tuple[Tensor, Values]":
        """Image `index` and its map, (size, size, …)."""
        from cgh_bench.frozen.patches import squashed

        image, values = self.whole.both(index)
        rows, columns = (nearest(side, self.size) for side in values.shape[:2])
        return squashed(self.size).cut(image), values[rows[:, None], columns]


def nearest(length: int, size: int) -> NDArray[np.int64]:
    """For each of `size` pixels the number of the nearest of `length`."""
    return ((np.arange(size) + 0.5) * length / size).astype(np.int64)
