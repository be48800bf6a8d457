"""Fine-tuning, whatever the recipe: all labels or a few, the network after the last epoch counts, nothing is chosen."""

import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.core.config import fingerprint
from cgh_bench.core.descent import BY_STEP, Schedule
from cgh_bench.core.device import arithmetic
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import share_of_classes
from cgh_bench.data.transform import IMAGENET_LINEAR, EvalTransform
from cgh_bench.frozen.selection import Rows, require_learnable
from cgh_bench.tasks.base import TOP5, Folders, ImageTask, Metric

if TYPE_CHECKING:
    import torch

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair, ImageSet
    from cgh_bench.frozen.crops import Batches
    from cgh_bench.frozen.finetuning import Tuning
    from cgh_bench.frozen.judge import Judge

FORWARDS_PER_STEP = 3
"""What a step costs, backward pass included, as a multiple of the forward pass: a rule of thumb for the plan."""


@dataclass(frozen=True)
class Tuned(ImageTask):
    """What all fine-tuning has in common."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("top1_selected_on_val"))

    labelled: float = 1.0
    """The share of every class's train images that is used, drawn by the seed (datasets such as `imagenet1k_10pct` are
    published lists: all of them are)."""
    transform: EvalTransform = IMAGENET_LINEAR
    schedule: Schedule = BY_STEP
    epochs: int = 20
    batch_size: int = 256
    """Images of a step, all processes together."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1:
            raise UserError(f"epochs {self.epochs} and batch_size {self.batch_size} must be at least 1")
        if not 0 < self.labelled <= 1:
            raise UserError(f"labelled={self.labelled:g} must be a fraction above 0 and at most 1")

    def check(self, data: "DataPair") -> None:
        """Refuse what no classifier fits."""
        require_learnable(data.train, data.val)

    def labelled_rows(self, checkpoint: "Checkpoint", train: "ImageSet", seed: int) -> Rows:
        """Which of the train images are learned from.

        Raises:
            UserError: the network cannot be trained on so few.
        """
        return share_of_classes(train, self.labelled, seed)

    @abstractmethod
    def tuning(
        self, checkpoint: "Checkpoint", classes: int, judge: "Judge", seed: int, device: "torch.device"
    ) -> "Tuning":
        """The network with a head that the seed draws, and how it descends."""

    @abstractmethod
    def batches(self, checkpoint: "Checkpoint", train: "ImageSet", rows: Rows, seed: int) -> "Batches":
        """What the epochs see of the images `rows`."""

    def plan(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders) -> list[str]:
        """How long the training takes, val after every epoch included, by the backbone's speed on a few images."""
        from cgh_bench.core import dist
        from cgh_bench.frozen.cost import measured
        from cgh_bench.frozen.extraction import Work
        from cgh_bench.frozen.training import planned

        rows = self.labelled_rows(checkpoint, data.train, seed=0)
        targets = (checkpoint.architecture.targets("layer4"),)
        work = Work(checkpoint, data.train, self.transform, targets, self.precision)
        rate = measured(work).images_per_second * dist.world_size()
        passes = FORWARDS_PER_STEP * len(rows) + len(data.val)
        return [planned(len(rows), self.batch_size, self.epochs, passes, rate)]

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the labelled images, the first head, the order and the crops.

        `top1` is after the last epoch, `top1_selected_on_val` after the best on val: what the literature often
        prints, and optimistic. Interrupted, it resumes after the last finished epoch.
        """
        from cgh_bench.core import dist
        from cgh_bench.frozen.extraction import Work, require_usable
        from cgh_bench.frozen.judge import Judge
        from cgh_bench.frozen.training import Course, train
        from cgh_bench.outcomes.classification import classification

        images, val, state = data.train, data.val, folders.run / "state.pt"
        rows = self.labelled_rows(checkpoint, images, seed)
        with dist.process_group() as device, arithmetic(self.precision, device):
            judge = Judge(val, self.transform, self.batch_size)
            tuning = self.tuning(checkpoint, len(images.classes), judge, seed, device)
            batches = self.batches(checkpoint, images, rows, seed)
            if not state.exists():
                for some in (val, images):
                    require_usable(Work(checkpoint, some, self.transform, ()))
            identity = fingerprint([self, checkpoint.id, images.fingerprint, val.fingerprint, seed])
            title = f"fine-tuning {checkpoint.name}"
            course = Course(title, self.epochs, self.schedule, identity, state, device)
            history = train(tuning, batches, course)
            folders.write("epochs.json", json.dumps(history))
            predicted, ranks = tuning.answers()
            outcomes = classification(val, predicted.numpy(), ranks.numpy())
            folders.keep(outcomes)
        best = max(record["top1"] for record in history)
        declared = {metric.name for metric in self.METRICS}
        measured = {name: value for name, value in outcomes.metrics().items() if name in declared}
        return {**measured, "top1_selected_on_val": best}
