"""Few-shot ridge regression: a linear classifier in closed form, from a few train images of each class, in seconds.

Source: google-research/big_vision@0127fb6 `big_vision/evaluators/fewshot_lsr.py`: features standardised by the drawn
images, a constant of 100 for a bias that the penalty hardly reaches, one-hot targets of -1 and 1, a penalty of 2^10.
Which images are drawn is ours (NumPy's draws instead of JAX's).
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS, TRANSFER, EvalTransform
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.knn_few_shot import FewShot, drawn

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair

Floats = NDArray[np.float64]
ROWS = 16_384
"""Queries at a time."""


@dataclass(frozen=True)
class RidgeFewShot(FewShot):
    """Classify the val images by ridge regression on a few train images per class, drawn `repeats` times."""

    transform: EvalTransform = TRANSFER
    shots: int = 10
    repeats: int = 3
    penalty: float = 1024.0
    """Multiplies the squared norm of the weights, beside the sum of squared errors."""
    bias: float = 100.0
    """The constant feature."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty <= 0:
            raise UserError(f"penalty {self.penalty} must be above 0")

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the images. `top1` is the mean over the repeats, `top1_std` their sample deviation."""
        from cgh_bench.outcomes.classification import classification

        train, val = self.features(checkpoint, data, folders)
        answers = []
        for repeat in range(self.repeats):
            rows = drawn(train, self.shots, np.random.default_rng([seed, repeat]))
            scores = ridge(train.features[rows], train.labels[rows], val.features, self.penalty, self.bias)
            answers.append(scores.argmax(axis=1))
        measures = {metric.name: metric.name for metric in self.METRICS}
        outcomes = classification(data.val, np.stack(answers, axis=1), measures=measures)
        folders.keep(outcomes)
        folders.write("repeats.json", json.dumps([float((a == val.labels).mean()) for a in answers]))
        return outcomes.metrics()


def ridge(
    train: NDArray[np.float32], labels: NDArray[np.int64], queries: NDArray[np.float32], penalty: float, bias: float
) -> Floats:
    """The scores (Q, C) of queries (Q, D) by the classifier fitted to train (N, D) and labels (N,) from 0 to C - 1.

    The normal equations are solved in N or in D + 1 unknowns, whichever are fewer.
    """
    from scipy.linalg import solve

    mean, deviation = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64) + 1e-5
    x = np.pad((train - mean) / deviation, ((0, 0), (0, 1)), constant_values=bias)
    targets = 2.0 * np.eye(labels.max() + 1)[labels] - 1
    if len(x) <= x.shape[1]:
        weights = x.T @ solve(x @ x.T + penalty * np.eye(len(x)), targets, assume_a="pos")
    else:
        weights = solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ targets, assume_a="pos")
    scaled = weights[:-1] / deviation[:, None]
    offset = bias * weights[-1] - mean @ scaled
    return np.concatenate([queries[n : n + ROWS] @ scaled + offset for n in range(0, len(queries), ROWS)])


TASKS = {
    **{f"ridge_{shots}shot": RidgeFewShot(shots=shots) for shots in (1, 5, 10, 25)},
    "animals_ridge_10shot": RidgeFewShot("animals", AS_IS),
}
