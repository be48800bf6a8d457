"""Calibration of a linear probe: whether 80 per cent confidence means 80 per cent right.

The probe is that of `linear`, down to the choice of its weight decay. The temperature of the `…_scaled` numbers is
fitted to the images that were held out of train, by the classifier that was not fitted to them; val takes no part.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair
from cgh_bench.data.transform import AS_IS
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.linear import Linear

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

MEASURES = (("ece", "%"), ("ece_equal_count", "%"), ("rms", "%"), ("brier", ""), ("nll", "nats"))


@dataclass(frozen=True)
class Calibration(Linear):
    """Measure the calibration of a linear classifier's probabilities, before and after temperature scaling."""

    METRICS: ClassVar = (
        *(Metric(name, unit, higher_is_better=False) for name, unit in MEASURES),
        *(Metric(f"{name}_scaled", unit, higher_is_better=False) for name, unit in MEASURES),
        Metric("temperature", "", higher_is_better=None),
        Metric("top1"),
        Metric("top1_covered"),
    )

    bins: int = 15
    """How many bins the two calibration errors have (Guo et al., ICML 2017)."""
    coverage: float = 0.8
    """The share of images, the most confident, of which `top1_covered` is the accuracy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 1 or not 0 < self.coverage <= 1:
            raise UserError(f"bins {self.bins} must be at least 1, coverage {self.coverage} a fraction above 0")

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images. `reliability.csv` has the bins of `ece`."""
        import torch

        from cgh_bench.frozen import confidence
        from cgh_bench.frozen.selection import hold_out
        from cgh_bench.outcomes.classification import classification

        train, val = self.features(checkpoint, data, folders)
        choice = self.choose(data, train, val, seed)
        _, held = hold_out(data.train, self.held_out, seed)
        temperature = confidence.temperature(choice.held_out_scores, torch.tensor(train.labels[held]))
        scores, truth = choice.scores, torch.tensor(val.labels)
        before = confidence.calibration(scores, truth, self.bins)
        after = confidence.calibration(scores / temperature, truth, self.bins)
        bins = confidence.reliability(scores, truth, self.bins)
        folders.table("reliability.csv", ("confidence", "accuracy", "images"), bins)
        folders.keep(classification(data.val, scores.argmax(dim=1).numpy(), measures={"top1": "top1"}))
        return {
            **before,
            **{f"{name}_scaled": value for name, value in after.items()},
            "temperature": temperature,
            "top1": choice.val[choice.index],
            "top1_covered": confidence.accuracy_at(self.coverage, scores, truth),
        }


TASKS = {
    "calibration": Calibration(),
    "imagenet_calibration": Calibration("imagenet1k"),
    "animals_calibration": Calibration("animals", AS_IS),
}
