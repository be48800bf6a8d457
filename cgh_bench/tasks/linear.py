"""Linear probe on frozen, cached features: a softmax classifier for a whole grid of weight decays at once.

The features of the untouched image (no augmentation) are standardised by the train images' mean and deviation, and
the regularised cross-entropy, which is convex, is minimised to its optimum: nothing depends on a learning rate. Weight
decay is chosen on a part of the train images that is held out, never on the images that are reported.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor

from cgh_bench import probe
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.data.transform import AS_IS, IMAGENET_LINEAR, EvalTransform
from cgh_bench.errors import UserError
from cgh_bench.features import FeatureBank, extract_pair, pair_fingerprint
from cgh_bench.files import write_text
from cgh_bench.metrics import top_accuracy
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

    def __post_init__(self) -> None:
        if not self.weight_decays or min(self.weight_decays) <= 0:
            raise UserError(f"weight_decays {self.weight_decays} must be above zero: then each optimum is unique")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out {self.held_out} is not a fraction between 0 and 1")

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images.

        `top1` is of the weight decay chosen on the held-out images, refitted on all train images.
        `top1_selected_on_val` is the best of the grid on val: what the literature often prints, and optimistic.
        """
        train, val = extract_pair(checkpoint, self.data, self.transform, self.feature, folders.cache)
        fitted, held = _split(train, self.held_out, seed)
        some = probe.problem(train.features, train.labels, fitted)
        start = torch.zeros(len(self.weight_decays), train.features.shape[1] + 1, len(train.classes))
        heads = self._fit(some, start.to(some.mean.device))
        held_accuracy = _accuracies(probe.scores(replace(some, rows=held), heads), train.labels[held])
        chosen = int(np.argmax(held_accuracy))

        every = probe.problem(train.features, train.labels, np.arange(len(train.labels)))
        heads = self._fit(every, heads)
        on_val = replace(every, features=val.features, labels=val.labels, rows=np.arange(len(val.labels)))
        scores = probe.scores(on_val, heads)
        val_accuracy = _accuracies(scores, val.labels)
        record = {"weight_decays": self.weight_decays, "held_out_top1": held_accuracy, "val_top1": val_accuracy}
        write_text(folders.run / "grid.json", json.dumps({**record, "chosen": self.weight_decays[chosen]}))
        return {
            "top1": val_accuracy[chosen],
            "top5": 100 * top_accuracy(scores[:, chosen], torch.tensor(val.labels), 5),
            "top1_selected_on_val": max(val_accuracy),
        }

    def _fit(self, task: probe.Problem, start: Tensor) -> Tensor:
        return probe.fit(task, self.weight_decays, start, self.iterations, self.tolerance)


def _split(train: FeatureBank, held_out: float, seed: int) -> tuple[probe.Rows, probe.Rows]:
    """Row numbers to fit and to hold out, every class in both."""
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if counts.min() < 2:
        name = train.classes[int(counts.argmin())]
        raise UserError(f"class {name!r} has {counts.min()} train images; two are needed, one of them to hold out")
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=held_out, random_state=seed)
    fitted, held = next(splitter.split(np.zeros(len(train.labels)), train.labels))
    return np.sort(fitted), np.sort(held)


def _accuracies(scores: Tensor, labels: probe.Rows) -> list[float]:
    """Top-1 in percent of each of the G classifiers whose logits are `scores` (N, G, C)."""
    truth = torch.tensor(labels)
    return [100 * top_accuracy(scores[:, head], truth, 1) for head in range(scores.shape[1])]


TASKS = {
    "linear": Linear(),
    "animals_linear": Linear(data="animals", transform=AS_IS),
}
