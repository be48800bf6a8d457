"""kNN where an image can show several classes: each class is scored by the neighbours' weighted share that show it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.errors import UserError
from cgh_bench.data import ImageSet
from cgh_bench.data.transform import TRANSFER, EvalTransform
from cgh_bench.frozen.features import extract_pair, load_pair, pair_fingerprint, plan_pair
from cgh_bench.frozen.metrics import NOT_COUNTED, average_precisions, average_precisions_11_points
from cgh_bench.frozen.neighbours import shared_neighbours
from cgh_bench.frozen.voting import vote_weights
from cgh_bench.tasks import Folders, Metric
from cgh_bench.tasks.knn import require_positive, search_plan


@dataclass(frozen=True)
class KNNMultiLabel:
    """Score each class of each val image by its nearest train images; mean average precision."""

    METRICS: ClassVar = (Metric("mAP_11_points"), Metric("mAP"))

    data: str = ""
    transform: EvalTransform = TRANSFER
    feature: str = "layer4"
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require_positive(self.k, self.temperature)

    def data_fingerprint(self, cache: Path) -> str:
        """Of train and val images together."""
        return pair_fingerprint(self.data)

    def plan(self, checkpoint: Checkpoint, folders: Folders) -> list[str]:
        """Time and disk of the features, memory of the search."""
        train, val = self._images()
        features = plan_pair(checkpoint, self.data, self.transform, self.feature, folders.cache)
        return [*features, search_plan(checkpoint, self.feature, (len(train), len(val)), self.k)]

    def _images(self) -> tuple[ImageSet, ImageSet]:
        """Train and val; refused is a set of one class an image."""
        train, val = load_pair(self.data)
        if not train.multi_label:
            raise UserError(f"{self.data} has one class an image; take the task knn")
        return train, val

    def run(self, checkpoint: Checkpoint, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters. `mAP_11_points` is PASCAL VOC 2007's and the transfer suite's."""
        self._images()
        train, val = extract_pair(checkpoint, self.data, self.transform, self.feature, folders.cache)
        similarity, row = shared_neighbours(train.features, val.features, self.k)
        scores = shares(vote_weights(similarity, self.temperature).numpy(), train.labels[row])
        eleven, every = average_precisions_11_points(scores, val.labels), average_precisions(scores, val.labels)
        return {"mAP_11_points": 100 * float(np.nanmean(eleven)), "mAP": 100 * float(np.nanmean(every))}


def shares(weights: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weighted share (Q, C) of the neighbours that show each class, of those where it is known.

    `weights` are (Q, K), `labels` (Q, K, C): 1 present, 0 absent, -1 not counted.
    """
    shown = np.einsum("qk,qkc->qc", weights, (labels == 1).astype(np.float64))
    known = np.einsum("qk,qkc->qc", weights, (labels != NOT_COUNTED).astype(np.float64))
    share: NDArray[np.float64] = np.divide(shown, known, out=np.zeros_like(shown), where=known > 0)
    return share


TASKS = {"voc07_knn": KNNMultiLabel(data="voc07"), "knn_multi_label": KNNMultiLabel()}
