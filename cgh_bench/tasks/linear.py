"""Linear probe on frozen, cached features: a softmax classifier for a whole grid of weight decays at once.

The features of the untouched image (no augmentation) are standardised by the train images' mean and deviation, and
the regularised cross-entropy, which is convex, is minimised to its optimum: nothing depends on a learning rate. Weight
decay is chosen on a part of the train images that is held out, never on the images that are reported. With `views`,
random crops of the train images are learned from too; an image is held out in all its views, and judged untouched.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing, write_text
from cgh_bench.data import ImageSet
from cgh_bench.data.transform import AS_IS, IMAGENET_LINEAR, EvalTransform
from cgh_bench.frozen import probe
from cgh_bench.frozen.crops import IMAGENET_CROP, Crop
from cgh_bench.frozen.features import extract, load_pair, pair_fingerprint, plan
from cgh_bench.frozen.metrics import accuracy, top_accuracy
from cgh_bench.frozen.selection import Rows, hold_out, require_learnable
from cgh_bench.frozen.views import in_all_views, with_crops
from cgh_bench.tasks import Folders, Metric


@dataclass(frozen=True)
class Linear:
    """Classify each val image by the best linear classifier on the train images' features."""

    METRICS: ClassVar = (Metric("top1"), Metric("top5"), Metric("top1_selected_on_val"))

    data: str = ""
    transform: EvalTransform = IMAGENET_LINEAR
    feature: str = "layer4"
    weight_decays: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0)
    """Each multiplies half the squared norm of the weights (not of the biases), beside the mean cross-entropy."""
    held_out: float = 0.1
    """The fraction of every class's train images on which the weight decay is chosen."""
    iterations: int = 300
    tolerance: float = 1e-4
    views: int = later(0)
    """Random crops of every train image that are learned from beside the untouched one; the same for all seeds."""
    crop: Crop = later(IMAGENET_CROP)  # noqa: RUF009 (it makes a field)

    def __post_init__(self) -> None:
        if not self.weight_decays or min(self.weight_decays) <= 0:
            raise UserError(f"weight_decays {self.weight_decays} must be above zero: then each optimum is unique")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out {self.held_out} is not a fraction between 0 and 1")
        if self.views < 0:
            raise UserError(f"views {self.views} must not be below 0")
        self._grid()

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def plan(self, checkpoint: Checkpoint, folders: Folders) -> list[str]:
        """Time and disk of the features, memory of the fit."""
        images, val, _ = self._split(seed=0)
        seen, transform = self._learned_from(images)
        return [
            *plan(checkpoint, seen, transform, (self.feature,), folders.cache),
            *plan(checkpoint, val, self.transform, (self.feature,), folders.cache),
            probe.plan(checkpoint, self.feature, seen, self._grid()),
        ]

    def _grid(self) -> probe.Grid:
        return probe.Grid(self.weight_decays, self.iterations, self.tolerance)

    def _split(self, seed: int) -> tuple[ImageSet, ImageSet, tuple[Rows, Rows]]:
        """Train, val, and which of train is fitted and held out; refused is what no classifier fits."""
        images, val = load_pair(self.data)
        require_learnable(images, val)
        return images, val, hold_out(images, self.held_out, seed)

    def _learned_from(self, images: ImageSet) -> tuple[ImageSet, EvalTransform]:
        """The train `images` in their views, and what is still to be done to them."""
        if not self.views:
            return images, self.transform
        return with_crops(images, self.transform, self.crop, self.views), AS_IS

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images.

        `top1` is of the weight decay chosen on the held-out images, refitted on all train images.
        `top1_selected_on_val` is the best of the grid on val: what the literature often prints, and optimistic.
        """
        images, val_images, (fitted, held) = self._split(seed)
        cache = folders.cache / "features"
        train = extract(checkpoint, *self._learned_from(images), self.feature, cache)
        val = extract(checkpoint, val_images, self.transform, self.feature, cache)
        split = in_all_views(fitted, len(images), self.views), held
        choice = probe.choose(train, val, split, self._grid(), accuracy)
        record = {"weight_decays": self.weight_decays, "held_out_top1": choice.held_out, "val_top1": choice.val}
        write_text(folders.run / "grid.json", json.dumps({**record, "chosen": self.weight_decays[choice.index]}))
        with replacing(folders.run / "predictions.npz") as path:
            np.savez(path, predicted=choice.scores.argmax(dim=1).cpu().numpy())
        return {
            "top1": choice.val[choice.index],
            "top5": 100 * top_accuracy(choice.scores, torch.tensor(val.labels), 5),
            "top1_selected_on_val": max(choice.val),
        }


TASKS = {
    "linear": Linear(),
    "linear_views": Linear(views=4),
    "animals_linear": Linear(data="animals", transform=AS_IS),
    "animals_linear_views": Linear(data="animals", transform=AS_IS, views=4, crop=Crop(48, (0.3, 1.0))),
}
