"""A task in one file: give each image the class whose mean feature is nearest by cosine."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.data.transform import AS_IS, IMAGENET_KNN, EvalTransform
from cgh_bench.frozen.features import extract_pair, pair_fingerprint
from cgh_bench.tasks import Folders, Metric


@dataclass(frozen=True)
class NearestMean:
    """Classify each val image by the nearest of the train images' class means."""

    METRICS: ClassVar = (Metric("top1"),)

    data: str = ""
    transform: EvalTransform = IMAGENET_KNN
    feature: str = "layer4"

    def data_fingerprint(self, cache: Path) -> str:
        """Checks the data before any work; the result is recorded under it."""
        return pair_fingerprint(self.data)

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters."""
        train, val = extract_pair(checkpoint, self.data, self.transform, self.feature, folders.cache)
        means = np.stack([train.features[train.labels == label].mean(axis=0) for label in range(len(train.classes))])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        predicted = (val.features @ means.T).argmax(axis=1)  # the norm of a val feature ranks nothing
        return {"top1": 100 * float((predicted == val.labels).mean())}


TASKS = {"nearest_mean": NearestMean(), "animals_nearest_mean": NearestMean(data="animals", transform=AS_IS)}
