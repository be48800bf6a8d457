"""Weighted k-nearest-neighbour classification on frozen features.

Source: Wu et al., Instance Discrimination, CVPR 2018 (https://arxiv.org/abs/1805.01978, eq. 7 and 8), in the form that
facebookresearch/dino `eval_knn.py` made usual: cosine similarity s, a neighbour votes exp(s / T) for its class.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.data.transform import AS_IS, IMAGENET_KNN, EvalTransform
from cgh_bench.errors import UserError
from cgh_bench.features import extract_pair, pair_fingerprint
from cgh_bench.metrics import class_balanced_accuracy, top_accuracy
from cgh_bench.neighbours import neighbours
from cgh_bench.tasks import Folders, Metric

RETRIEVED = 10
"""Neighbours kept for the retrieval pictures."""


@dataclass(frozen=True)
class KNN:
    """Classify each val image by the weighted votes of its nearest train images."""

    METRICS: ClassVar = (Metric("top1"), Metric("top5"), Metric("class_balanced"))

    data: str = ""
    transform: EvalTransform = IMAGENET_KNN
    feature: str = "layer4"
    k: int = 20
    """The K of `top1`, `top5` and `class_balanced`."""
    k_grid: tuple[int, ...] = (10, 20, 100, 200)
    """Every K whose top-1 is reported, as `top1_k10`, …, from one search."""
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if min(self.k, *self.k_grid) < 1 or self.temperature <= 0:
            raise UserError(f"k {self.k}, {self.k_grid} and temperature {self.temperature} must be above zero")

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters."""
        train, val = extract_pair(checkpoint, self.data, self.transform, self.feature, folders.cache)
        similarity, row = neighbours(train.features, val.features, max(self.k, *self.k_grid, RETRIEVED))
        weights = vote_weights(similarity, self.temperature)
        labels, truth = torch.tensor(train.labels[row]), torch.tensor(val.labels)
        scores = {k: votes(weights[:, :k], labels[:, :k], len(train.classes)) for k in {self.k, *self.k_grid}}
        predicted = scores[self.k].argmax(dim=1)
        np.savez(
            folders.run / "neighbours.npz",
            row=row[:, :RETRIEVED],
            similarity=similarity[:, :RETRIEVED],
            predicted=predicted.numpy(),
        )
        return {
            "top1": 100 * top_accuracy(scores[self.k], truth, 1),
            "top5": 100 * top_accuracy(scores[self.k], truth, 5),
            "class_balanced": 100 * class_balanced_accuracy(predicted, truth),
            **{f"top1_k{k}": 100 * top_accuracy(scores[k], truth, 1) for k in self.k_grid},
        }


def vote_weights(similarity: NDArray[np.float32], temperature: float) -> Tensor:
    """exp(s / T), (Q, K) float64, each row divided by its largest so that no temperature overflows."""
    s = torch.from_numpy(similarity).double()
    return ((s - s[:, :1]) / temperature).exp()


def votes(weights: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The sum (Q, C) of the `weights` (Q, K) of the neighbours of each class; `labels` (Q, K) are theirs."""
    return weights.new_zeros(len(weights), classes).scatter_add_(1, labels, weights)


TASKS = {
    "knn": KNN(),
    "animals_knn": KNN(data="animals", transform=AS_IS),
    "imagenet_knn": KNN(data="imagenet1k"),
}
