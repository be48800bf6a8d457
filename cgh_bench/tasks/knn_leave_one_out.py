"""kNN within one split: each image is classified by its nearest others, so that no image is spent on testing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cgh_bench.data.image_set import DataPair, ImageSet, Split
from cgh_bench.data.transform import AS_IS, EvalTransform
from cgh_bench.frozen.selection import require_one_label
from cgh_bench.tasks.base import TOP5, FeatureTask, Folders, Metric
from cgh_bench.tasks.knn import require_others, require_positive, search_plan, write_per_class

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True)
class LeaveOneOut(FeatureTask):
    """Classify each image of one split by its nearest other images in that split."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("class_balanced"))

    split: Split = "train"
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require_positive(self.k, self.temperature)

    def sets(self, data: DataPair) -> Sequence[tuple[ImageSet, EvalTransform]]:
        """The split's images."""
        return [(data.train if self.split == "train" else data.val, self.transform)]

    def check(self, data: DataPair) -> None:
        """Refuse a multi-label dataset, and a single image."""
        for images, _ in self.sets(data):
            require_one_label(images)
            require_others(images)

    def effort(self, checkpoint: "Checkpoint", data: DataPair) -> list[str]:
        """Time and memory of the search."""
        ((images, _),) = self.sets(data)
        return [search_plan(self.width(checkpoint), (len(images), len(images)), self.k + 1)]

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters."""
        from cgh_bench.frozen.metrics import rank_by, without_self
        from cgh_bench.frozen.neighbours import shared_neighbours
        from cgh_bench.outcomes.classification import classification

        (bank,) = self.features(checkpoint, data, folders)
        found = shared_neighbours(bank.features, bank.features, self.k + 1)
        similarity, row = without_self(*found, np.arange(len(bank.labels)))
        chosen = rank_by(similarity, bank.labels[row], bank.labels, len(bank.classes), self.k, self.temperature)
        ((images, _),) = self.sets(data)
        folders.keep(classification(images, *chosen.answers))
        write_per_class(folders, bank, bank, chosen)
        return chosen.metrics()


TASKS = {
    "knn_leave_one_out": LeaveOneOut(),
    "animals_knn_leave_one_out": LeaveOneOut(data="animals", transform=AS_IS),
}
