"""k-means on frozen features, compared with the classes: how far the groups a backbone sees are those people name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.core.progress import duration, seconds_of
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS, EvalTransform
from cgh_bench.frozen.selection import require_one_label
from cgh_bench.tasks.base import FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

Labels = NDArray[np.int64]
ROWS_TIMED = 2_048


@dataclass(frozen=True)
class Clusters(FeatureTask):
    """Cluster the val images without labels, into as many clusters as classes, and compare clusters with classes."""

    METRICS: ClassVar = (Metric("NMI"), Metric("AMI"), Metric("ARI"), Metric("accuracy"))

    starts: int = 5
    """k-means++ starts, of which the one with the smallest inertia counts. (zaczgao/Cross-Context_Learning
    eval_clustering.py: five, of random centres.)"""
    iterations: int = 300

    def __post_init__(self) -> None:
        if min(self.starts, self.iterations) < 1:
            raise UserError(f"starts {self.starts} and iterations {self.iterations} must be at least 1")

    def sets(self, data: DataPair) -> Sequence[tuple[ImageSet, EvalTransform]]:
        """The val images."""
        return [(data.val, self.transform)]

    def check(self, data: DataPair) -> None:
        """Refuse what cannot be grouped by its classes."""
        val = data.val
        require_one_label(val)
        if len(val) <= len(val.classes):
            raise UserError(
                f"{val.name} has {len(val)} images of {len(val.classes)} classes; clustering needs more images"
            )

    def effort(self, checkpoint: "Checkpoint", data: DataPair) -> list[str]:
        """Time and memory of k-means."""
        n, width, classes = len(data.val), self.width(checkpoint), len(data.val.classes)
        each = planned_seconds(n, width, classes)
        most = self.starts * (self.iterations + math.log(classes) + 2)  # k-means++ draws so many for every centre
        return [
            f"k-means: {classes:,} clusters of {n:,} × {width}, {self.starts} starts of at most {self.iterations} "
            f"iterations of {each:.2f} s (at most {duration(each * most)}), {12 * n * width / 1e6:,.0f} MB of memory",
        ]

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed is that of k-means; features are divided by their norm. Clusters are kept under their classes."""
        from sklearn.cluster import KMeans

        from cgh_bench.frozen.neighbours import unit_rows
        from cgh_bench.outcomes.classification import classification

        val = data.val
        (bank,) = self.features(checkpoint, data, folders)
        search = KMeans(len(val.classes), n_init=self.starts, max_iter=self.iterations, random_state=seed)
        found = search.fit_predict(unit_rows(bank.features))
        measures = {"NMI": "NMI", "AMI": "AMI", "ARI": "ARI", "accuracy": "top1"}
        outcomes = classification(val, matched(val.labels, found, len(val.classes))[found], measures=measures)
        folders.keep(outcomes)
        return outcomes.metrics()


def planned_seconds(n: int, width: int, clusters: int) -> float:
    """About how long an iteration of k-means takes, by one on a few made-up rows."""
    from sklearn.cluster import KMeans

    rows = np.random.default_rng(0).standard_normal((max(clusters, min(n, ROWS_TIMED)), width), np.float32)
    once = KMeans(clusters, n_init=1, max_iter=1, init=rows[:clusters])
    return seconds_of(lambda: once.fit(rows)) * n / len(rows)


def matched(truth: Labels, found: Labels, classes: int) -> Labels:
    """The class (C,) of each cluster where as many images as can be are right, one each (Hungarian method)."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(found, truth, labels=np.arange(classes))
    _, columns = linear_sum_assignment(counts, maximize=True)
    return np.asarray(columns, np.int64)


TASKS = {
    "clusters": Clusters(),
    "imagenet_clusters": Clusters("imagenet1k"),
    "animals_clusters": Clusters("animals", AS_IS),
}
