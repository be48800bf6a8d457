"""Transfer to other data sets: l2-regularised logistic regression on frozen features of the untouched images.

Source: the linear protocol of SimCLR (https://arxiv.org/abs/2002.05709, B.8.1) and BYOL (https://arxiv.org/abs/2006.07733,
D.1): no augmentation, the short side resized to 224, L-BFGS, 45 strengths of l2 from 1e-6 to 1e5, chosen on the data
set's validation images (or some held out where it has none), then refitted on all train images. As in MSF
(https://arxiv.org/abs/2105.07269), features are standardised. The strength multiplies half the squared norm of the
weights beside the mean cross-entropy.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import write_text
from cgh_bench.data import ImageSet
from cgh_bench.data.transform import AS_IS, TRANSFER, EvalTransform
from cgh_bench.frozen import probe
from cgh_bench.frozen.features import extract_pair, load_pair, pair_fingerprint, plan_pair
from cgh_bench.frozen.metrics import accuracy, class_balanced_accuracy
from cgh_bench.frozen.selection import Rows, hold_out, require_learnable
from cgh_bench.tasks import Folders, Metric


@dataclass(frozen=True)
class LogisticRegression:
    """Classify each test image by logistic regression, its l2 chosen on validation images and then refitted."""

    METRICS: ClassVar = (
        Metric("accuracy"),
        Metric("top1"),
        Metric("class_balanced"),
        Metric("accuracy_selected_on_val"),
    )

    data: str = ""
    transform: EvalTransform = TRANSFER
    feature: str = "layer4"
    metric: Literal["top1", "class_balanced"] = "top1"
    """What `accuracy` means, and what the strength is chosen by: over images, or the mean over classes."""
    strengths: tuple[float, ...] = tuple(float(f"{10**exponent:.4g}") for exponent in np.linspace(-6, 5, 45))
    held_out: float = 0.2
    """The fraction of every class's train images to choose on, where the data set has no validation images."""
    iterations: int = 300
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if min(self.strengths, default=0) <= 0 or not 0 < self.held_out < 1:
            raise UserError(
                f"strengths {self.strengths} must be above zero and held_out {self.held_out} between 0 and 1"
            )
        self._grid()

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def plan(self, checkpoint: Checkpoint, folders: Folders) -> list[str]:
        """Time and disk of the features, memory of the fit."""
        images, _ = self._split(seed=0)
        features = plan_pair(checkpoint, self.data, self.transform, self.feature, folders.cache)
        return [*features, probe.plan(checkpoint, self.feature, images, self._grid())]

    def _grid(self) -> probe.Grid:
        return probe.Grid(self.strengths, self.iterations, self.tolerance)

    def _split(self, seed: int) -> tuple[ImageSet, tuple[Rows, Rows]]:
        """Train, and which of it is fitted and held out; refused is what no classifier fits."""
        images, val = load_pair(self.data)
        require_learnable(images, val)
        return images, hold_out(images, self.held_out, seed)

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images, where the data set has none of its own.

        `accuracy_selected_on_val` is the best of the grid on the images that are reported: optimistic.
        """
        _, split = self._split(seed)
        train, val = extract_pair(checkpoint, self.data, self.transform, self.feature, folders.cache)
        chosen_by = accuracy if self.metric == "top1" else class_balanced_accuracy
        choice = probe.choose(train, val, split, self._grid(), chosen_by)
        record = {"strengths": self.strengths, "held_out": choice.held_out, "val": choice.val}
        write_text(folders.run / "grid.json", json.dumps({**record, "chosen": self.strengths[choice.index]}))
        predicted, truth = choice.scores.argmax(dim=1), torch.tensor(val.labels)
        return {
            "accuracy": choice.val[choice.index],
            "top1": 100 * accuracy(predicted, truth),
            "class_balanced": 100 * class_balanced_accuracy(predicted, truth),
            "accuracy_selected_on_val": max(choice.val),
        }


TOP1 = ("food101", "cifar10", "cifar100", "sun397", "cars", "dtd")
CLASS_BALANCED = ("aircraft", "pets", "caltech101", "flowers102")

TASKS = {
    **{f"{data}_logistic": LogisticRegression(data) for data in TOP1},
    **{f"{data}_logistic": LogisticRegression(data, metric="class_balanced") for data in CLASS_BALANCED},
    "logistic": LogisticRegression(),
    "animals_logistic": LogisticRegression("animals", AS_IS),
}
