"""Few-shot kNN: the bank holds a few train images of each class, drawn again and again; mean and deviation."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS
from cgh_bench.frozen.selection import require_shots
from cgh_bench.tasks.base import FeatureTask, Folders, Metric
from cgh_bench.tasks.knn import require_positive

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair
    from cgh_bench.frozen.features import FeatureBank


@dataclass(frozen=True)
class FewShot(FeatureTask):
    """A classifier is fitted to a few train images per class, drawn `repeats` times; mean and deviation."""

    METRICS: ClassVar = (Metric("top1"), Metric("top1_std", higher_is_better=False), Metric("class_balanced"))

    shots: int = 1
    """Train images of each class."""
    repeats: int = 10

    def __post_init__(self) -> None:
        if self.shots < 1 or self.repeats < 2:
            raise UserError(f"shots {self.shots} must be 1 or more, and repeats {self.repeats} 2 or more")

    def check(self, data: "DataPair") -> None:
        """Refuse a multi-label dataset, and a class of fewer images than are drawn."""
        super().check(data)
        require_shots(data.train, self.shots)


@dataclass(frozen=True)
class KNNFewShot(FewShot):
    """Classify the val images by kNN on a few train images per class, drawn `repeats` times."""

    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self.k, self.temperature)

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the images. `top1` is the mean over the repeats, `top1_std` their sample deviation."""
        from cgh_bench.frozen.metrics import rank_by
        from cgh_bench.frozen.neighbours import shared_neighbours
        from cgh_bench.outcomes.classification import classification

        train, val = self.features(checkpoint, data, folders)
        top1, balanced, answers = [], [], []
        for repeat in range(self.repeats):
            rows = drawn(train, self.shots, np.random.default_rng([seed, repeat]))
            similarity, row = shared_neighbours(train.features[rows], val.features, self.k)
            labels = train.labels[rows][row]
            ranked = rank_by(similarity, labels, val.labels, len(train.classes), self.k, self.temperature)
            answers.append(ranked.answers)
            metrics = ranked.metrics()
            top1.append(metrics["top1"])
            balanced.append(metrics["class_balanced"])
        predicted, ranks = (np.stack(column, axis=1) for column in zip(*answers, strict=True))
        folders.keep(classification(data.val, predicted, ranks, {metric.name: metric.name for metric in self.METRICS}))
        folders.write("repeats.json", json.dumps({"top1": top1, "class_balanced": balanced}))
        std = float(np.std(top1, ddof=1))
        return {"top1": float(np.mean(top1)), "top1_std": std, "class_balanced": float(np.mean(balanced))}


def drawn(bank: "FeatureBank", shots: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """The row numbers of `shots` images of each class, each at most once, sorted."""
    rows = [
        draw.choice(np.flatnonzero(bank.labels == label), shots, replace=False) for label in range(len(bank.classes))
    ]
    return np.sort(np.concatenate(rows))


TASKS = {
    **{f"knn_{shots}shot": KNNFewShot(shots=shots) for shots in (1, 5, 10)},
    "animals_knn_5shot": KNNFewShot(data="animals", transform=AS_IS, shots=5),
}
