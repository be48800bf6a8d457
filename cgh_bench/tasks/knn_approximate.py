"""kNN by an approximate index, for banks beyond tens of millions; its recall is measured and stands beside."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cgh_bench.tasks.base import TOP5, FeatureTask, Folders, Metric
from cgh_bench.tasks.knn import require_positive, write_per_class

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair


@dataclass(frozen=True)
class KNNApproximate(FeatureTask):
    """Classify each val image by its nearest train images, found by an approximate index."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("class_balanced"), Metric("recall"))

    k: int = 20
    temperature: float = 0.07
    index: str = "IVF4096,SQ8"
    """In the words of faiss's `index_factory`; `HNSW32` needs the whole bank in memory, and more."""
    search: str = "nprobe=64"
    """In the words of faiss's `ParameterSpace`; for HNSW `efSearch=256`."""
    recall_images: int = 1_000
    """Val images, drawn by the seed, whose neighbours are also searched for exactly."""

    def __post_init__(self) -> None:
        require_positive(self.k, self.temperature, self.recall_images)

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the images that `recall` is measured on: the share of their true neighbours found."""
        from cgh_bench.frozen.approximate import approximate_neighbours, recall
        from cgh_bench.frozen.metrics import rank_by
        from cgh_bench.outcomes.classification import classification

        train, val = self.features(checkpoint, data, folders)
        similarity, row = approximate_neighbours(train.features, val.features, self.k, self.index, self.search)
        ranked = rank_by(similarity, train.labels[row], val.labels, len(train.classes), self.k, self.temperature)
        count = min(self.recall_images, len(val.labels))
        some = np.sort(np.random.default_rng(seed).choice(len(val.labels), count, replace=False))
        found = recall(train.features, val.features[some], (similarity[some], row[some]))
        folders.keep(classification(data.val, *ranked.answers))
        write_per_class(folders, train, val, ranked)
        return {**ranked.metrics(), "recall": 100 * found}


TASKS = {"knn_approximate": KNNApproximate()}
