"""kNN where an image can show several classes: each class is scored by the neighbours' weighted share that show it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import TRANSFER, EvalTransform
from cgh_bench.tasks.base import FeatureTask, Folders, Metric
from cgh_bench.tasks.knn import require_positive, search_plan

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair


@dataclass(frozen=True)
class KNNMultiLabel(FeatureTask):
    """Score each class of each val image by its nearest train images (multi-label); mean average precision."""

    METRICS: ClassVar = (Metric("mAP_11_points"), Metric("mAP"))

    transform: EvalTransform = TRANSFER
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require_positive(self.k, self.temperature)

    def check(self, data: "DataPair") -> None:
        """Refuse a dataset with one class per image."""
        if not data.train.multi_label:
            raise UserError(f"{data.name} has one class per image; use the task knn")

    def effort(self, checkpoint: "Checkpoint", data: "DataPair") -> list[str]:
        """Time and memory of the search."""
        return [search_plan(self.width(checkpoint), (len(data.train), len(data.val)), self.k)]

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters. `mAP_11_points` is PASCAL VOC 2007's and the transfer suite's."""
        from cgh_bench.frozen.metrics import average_precisions, average_precisions_11_points, vote_weights
        from cgh_bench.frozen.neighbours import shared_neighbours
        from cgh_bench.outcomes.multi_label import multi_label

        train, val = self.features(checkpoint, data, folders)
        similarity, row = shared_neighbours(train.features, val.features, self.k)
        scores = shares(vote_weights(similarity, self.temperature).numpy(), train.labels[row])
        folders.keep(multi_label(data.val, val.labels, scores, {"mAP_11_points": "11 points", "mAP": "mean"}))
        eleven, every = average_precisions_11_points(scores, val.labels), average_precisions(scores, val.labels)
        return {"mAP_11_points": 100 * float(np.nanmean(eleven)), "mAP": 100 * float(np.nanmean(every))}


def shares(weights: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weighted share (Q, C) of the neighbours that show each class, of those where it is known.

    `weights` are (Q, K), `labels` (Q, K, C): 1 present, 0 absent, -1 not counted.
    """
    shown = np.einsum("qk,qkc->qc", weights, (labels == 1).astype(np.float64))
    known = np.einsum("qk,qkc->qc", weights, (labels >= 0).astype(np.float64))
    return np.divide(shown, known, out=np.zeros_like(shown), where=known > 0)


TASKS = {"voc07_knn": KNNMultiLabel(data="voc07"), "knn_multi_label": KNNMultiLabel()}
