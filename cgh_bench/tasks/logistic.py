"""Transfer to other datasets: l2-regularised logistic regression on frozen features of the untouched images.

Source: the linear protocol of SimCLR (https://arxiv.org/abs/2002.05709, B.8.1) and BYOL (https://arxiv.org/abs/2006.07733,
D.1): no augmentation, the short side resized to 224, L-BFGS, 45 strengths of l2 from 1e-6 to 1e5, chosen on the data
set's validation images (or some held out where it has none), then refitted on all train images. As in MSF
(https://arxiv.org/abs/2105.07269), features are standardised. The strength multiplies half the squared norm of the
weights beside the mean cross-entropy.
"""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.data.imagenet import CATALOG as IMAGENET
from cgh_bench.data.inaturalist import CATALOG as INATURALIST
from cgh_bench.data.medmnist import CATALOG as MEDMNIST
from cgh_bench.data.transform import AS_IS, IMAGENET_LINEAR, TRANSFER, EvalTransform
from cgh_bench.data.vtab import SQUASHED, TEST_IMAGES
from cgh_bench.data.wilds import CATALOG as WILDS
from cgh_bench.frozen.selection import Grid, Rows, hold_out, require_learnable
from cgh_bench.tasks.base import CONVERGED, WORST_GROUP, FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair, ImageSet


@dataclass(frozen=True)
class LogisticRegression(FeatureTask):
    """Classify each test image by logistic regression, with l2 chosen on validation images, then refitted."""

    METRICS: ClassVar = (
        Metric("accuracy"),
        Metric("top1"),
        Metric("class_balanced"),
        WORST_GROUP,
        Metric("accuracy_selected_on_val"),
        CONVERGED,
    )

    transform: EvalTransform = TRANSFER
    metric: Literal["top1", "class_balanced"] = "top1"
    """What `accuracy` means, and what the strength is chosen by: over images, or the mean over classes."""
    strengths: tuple[float, ...] = tuple(float(f"{10**exponent:.4g}") for exponent in np.linspace(-6, 5, 45))
    held_out: float = 0.2
    """The fraction of every class's train images to choose on, where the dataset has no validation images."""
    iterations: int = 300
    tolerance: float = 1e-6
    """See `lbfgs.minimise`."""
    scaling: Literal["standardised", "none", "unit"] = later("standardised")
    """What is done to features: by mean and deviation of train, nothing, or train's mean off and to unit length."""
    summed: bool = later(False)
    """Whether strengths stand beside the sum of the cross-entropies, not their mean: as scikit-learn's 1 / C."""
    intercept: bool = later(True)

    def __post_init__(self) -> None:
        if min(self.strengths, default=0) <= 0 or not 0 < self.held_out < 1:
            raise UserError(
                f"strengths {self.strengths} must be above zero and held_out {self.held_out} between 0 and 1"
            )
        self._grid()

    def check(self, data: "DataPair") -> None:
        """Refuse what no classifier fits, or too few images to hold some out."""
        require_learnable(data.train, data.val)
        self._split(data.train, seed=0)

    def effort(self, checkpoint: "Checkpoint", data: "DataPair") -> list[str]:
        """Time and memory of the fit."""
        from cgh_bench.frozen import probe

        return [probe.plan(self.width(checkpoint), data.train, self._grid())]

    def _grid(self) -> Grid:
        standardised = self.scaling == "standardised"
        return Grid(
            self.strengths,
            self.iterations,
            self.tolerance,
            summed=self.summed,
            standardised=standardised,
            intercept=self.intercept,
        )

    def _split(self, images: "ImageSet", seed: int) -> tuple[Rows, Rows]:
        """Rows to fit and to choose on; of a single strength, nothing is chosen and nothing held out."""
        if len(self.strengths) > 1:
            return hold_out(images, self.held_out, seed)
        return np.arange(len(images)), np.arange(0)

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images, where the dataset has none of its own.

        `accuracy_selected_on_val` is the best of the grid on the images that are reported: optimistic.
        """
        import torch

        from cgh_bench.frozen import search
        from cgh_bench.frozen.label_free import unit
        from cgh_bench.frozen.metrics import accuracy, class_balanced_accuracy
        from cgh_bench.outcomes.classification import classification

        train, val = self.features(checkpoint, data, folders)
        if self.scaling == "unit":
            mean = train.features.mean(axis=0, dtype=np.float64)
            train, val = (
                replace(bank, features=unit(bank.features - mean).astype(np.float32)) for bank in (train, val)
            )
        chosen_by = accuracy if self.metric == "top1" else class_balanced_accuracy
        choice = search.choose(train, val, self._split(data.train, seed), self._grid(), chosen_by)
        record = {
            "strengths": self.strengths,
            "held_out": choice.held_out,
            "val": choice.val,
            "converged": choice.converged,
            "chosen": self.strengths[choice.index],
        }
        folders.write("grid.json", json.dumps(record))
        predicted, truth = choice.scores.argmax(dim=1), torch.tensor(val.labels)
        measures = {"accuracy": self.metric, "top1": "top1", "class_balanced": "class_balanced"}
        best = {"accuracy_selected_on_val": choice.best == val.labels} if self.metric == "top1" else {}
        folders.keep(classification(data.val, predicted.numpy(), measures=measures, right=best))
        return {
            "accuracy": choice.val[choice.index],
            "top1": 100 * accuracy(predicted, truth),
            "class_balanced": 100 * class_balanced_accuracy(predicted, truth),
            "accuracy_selected_on_val": max(choice.val),
            "converged": choice.share_converged,
        }


TOP1 = (
    *("food101", "cifar10", "cifar100", "sun397", "cars", "dtd", "cub200"),
    *WILDS,
    *(name for name in MEDMNIST if name != "chestmnist"),
)
CLASS_BALANCED = ("aircraft", "pets", "caltech101", "flowers102", "birdsnap", *INATURALIST)

# facebookresearch/dinov3 dinov3/eval/log_regression.py (and dinov2's): C from 1e-6 to 1e5, chosen on validation images,
# or on a tenth of train, then refitted on both; scikit-learn's objective, features as they are.
DINOV2 = LogisticRegression(
    strengths=tuple(float(f"{10**-exponent:.4g}") for exponent in np.linspace(-6, 5, 45)),
    held_out=0.1,
    iterations=1000,
    scaling="none",
    summed=True,
)
# facebookresearch/msn logistic_eval.py and README.md; I-JEPA publishes no code. There the test features are centred by
# their own mean; here by that of train, so that an answer does not depend on the other test images.
MSN = LogisticRegression(
    transform=IMAGENET_LINEAR, strengths=(0.0025,), iterations=1000, scaling="unit", summed=True, intercept=False
)

TASKS = {
    **{f"{data}_logistic": LogisticRegression(data) for data in TOP1},
    **{f"{data}_logistic": LogisticRegression(data, metric="class_balanced") for data in CLASS_BALANCED},
    **{f"vtab_{name}_logistic": LogisticRegression(f"vtab_{name}", SQUASHED) for name in TEST_IMAGES},
    **{f"{data}_logistic_dinov2": replace(DINOV2, data=data) for data in TOP1},
    **{f"{data}_logistic_dinov2": replace(DINOV2, data=data, metric="class_balanced") for data in CLASS_BALANCED},
    **{f"{data}_msn": replace(MSN, data=data) for data in IMAGENET if "_msn_" in data or data.endswith("_1pct")},
    "logistic_dinov2": DINOV2,
    "animals_logistic_dinov2": replace(DINOV2, data="animals", transform=AS_IS),
    "logistic": LogisticRegression(),
    "animals_logistic": LogisticRegression("animals", AS_IS),
}
