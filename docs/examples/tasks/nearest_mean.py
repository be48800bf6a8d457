"""A task in one file: give each image the class whose mean feature is nearest by cosine."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cgh_bench.data.transform import AS_IS
from cgh_bench.tasks.base import FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair


@dataclass(frozen=True)
class NearestMean(FeatureTask):
    """Classify each val image by the nearest of the train images' class means."""

    METRICS: ClassVar = (Metric("top1"),)

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters."""
        train, val = self.features(checkpoint, data, folders)
        means = np.stack([train.features[train.labels == label].mean(axis=0) for label in range(len(train.classes))])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        predicted = (val.features @ means.T).argmax(axis=1)  # the norm of a val feature ranks nothing
        return {"top1": 100 * float((predicted == val.labels).mean())}


TASKS = {"nearest_mean": NearestMean(), "animals_nearest_mean": NearestMean(data="animals", transform=AS_IS)}
