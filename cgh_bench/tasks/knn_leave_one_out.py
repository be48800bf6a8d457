"""kNN within one split: each image is classified by its nearest others, so that no image is spent on testing."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.data import ImageSet, Split
from cgh_bench.data.transform import AS_IS, IMAGENET_KNN, EvalTransform
from cgh_bench.frozen.features import extract, load_pair, pair_fingerprint, plan
from cgh_bench.frozen.neighbours import shared_neighbours
from cgh_bench.frozen.selection import require_one_label
from cgh_bench.frozen.voting import rank, without_self
from cgh_bench.tasks import Folders, Metric
from cgh_bench.tasks.knn import require_others, require_positive, search_plan, write_per_class


@dataclass(frozen=True)
class LeaveOneOut:
    """Classify each image of one split by its nearest others in that split."""

    METRICS: ClassVar = (Metric("top1"), Metric("top5"), Metric("class_balanced"))

    data: str = ""
    transform: EvalTransform = IMAGENET_KNN
    feature: str = "layer4"
    split: Split = "train"
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require_positive(self.k, self.temperature)

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def plan(self, checkpoint: Checkpoint, folders: Folders) -> list[str]:
        """Time and disk of the features, memory of the search."""
        images = self._images()
        return [
            *plan(checkpoint, images, self.transform, (self.feature,), folders.cache),
            search_plan(checkpoint, self.feature, (len(images), len(images)), self.k + 1),
        ]

    def _images(self) -> ImageSet:
        """Of the split; refused is what nothing can be left out of."""
        images = load_pair(self.data)[self.split == "val"]
        require_one_label(images)
        require_others(images)
        return images

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters."""
        images = self._images()
        bank = extract(checkpoint, images, self.transform, self.feature, folders.cache / "features")
        found = shared_neighbours(bank.features, bank.features, self.k + 1)
        similarity, row = without_self(*found, np.arange(len(bank.labels)))
        chosen = rank(similarity, bank.labels[row], bank.labels, [self.k], [self.temperature])[self.k, self.temperature]
        write_per_class(folders.run, bank, bank, chosen)
        return chosen.metrics()


TASKS = {
    "knn_leave_one_out": LeaveOneOut(),
    "animals_knn_leave_one_out": LeaveOneOut(data="animals", transform=AS_IS),
}
