"""Heads on a frozen backbone that are trained on random crops, a whole grid at once; held-out images choose one."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from cgh_bench.core.config import fingerprint, later
from cgh_bench.core.descent import BY_STEP, Schedule
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet, subset
from cgh_bench.data.transform import IMAGENET_CROP, IMAGENET_LINEAR, Crop, EvalTransform
from cgh_bench.frozen.selection import Rows, hold_out, require_learnable
from cgh_bench.tasks.base import TOP5, Folders, ImageTask, Metric

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.training import Learner

    class Probe(Learner, Protocol):
        """The heads; an epoch's record has `NAME_top1` and `NAME_top5`, of every head, for each set of images."""

        def answers(self, name: str, head: int) -> tuple[Tensor, Tensor]:
            """The class (N,) that a head predicts for each image of a set, and the rank (N,) of the true one."""
            ...

        def require_frozen(self) -> None:
            """Prove that the backbone has not changed."""
            ...


@dataclass(frozen=True)
class CropProbe(ImageTask):
    """What probes on random crops have in common."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("top1_selected_on_val"))

    transform: EvalTransform = IMAGENET_LINEAR
    crop: Crop = IMAGENET_CROP
    learning_rates: tuple[float, ...] = (0.3,)
    """As they are, never rescaled by the batch size."""
    weight_decays: tuple[float, ...] = (0.0,)
    schedule: Schedule = BY_STEP
    epochs: int = 100
    batch_size: int = 256
    """Images of a step, all processes together."""
    held_out: float = 0.0
    """The fraction of every class's train images that the head is chosen on; 0 where there is but one."""
    initial: float = 0.01
    """Standard deviation of the first weights; the biases start at zero."""
    steps: int = later(0)
    """Steps of an epoch, which need not be a pass over the images; 0: it is."""

    def __post_init__(self) -> None:
        if min(self.learning_rates, default=0) <= 0 or min(self.weight_decays, default=-1) < 0:
            raise UserError(
                f"learning_rates {self.learning_rates} must be above 0, weight_decays {self.weight_decays} not below, "
                "and there must be one of each"
            )
        if min(self.epochs, self.batch_size) < 1 or not 0 <= self.held_out < 1:
            raise UserError(
                f"epochs {self.epochs} and batch_size {self.batch_size} must be at least 1, "
                f"held_out {self.held_out} a fraction below 1"
            )
        for name in ("initial", "steps"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"{name} {value} must not be below 0")
        if len(self.grid) > 1 and not self.held_out:
            raise UserError(f"a grid of {len(self.grid)} heads needs held-out images; set held_out=0.01 or so")

    @property
    @abstractmethod
    def grid(self) -> list[tuple[str, float, float]]:
        """Feature, learning rate and weight decay of every head."""

    @abstractmethod
    def probe(
        self,
        checkpoint: "Checkpoint",
        judged: Mapping[str, ImageSet],
        folders: Folders,
        seed: int,
        device: "torch.device",
    ) -> "Probe":
        """The heads of the grid as the seed draws them, and the sets of images that they are judged on, by name."""

    def check(self, data: DataPair) -> None:
        """Refuse what no classifier fits, or too few images to hold some out."""
        require_learnable(data.train, data.val)
        self._split(data.train, seed=0)

    def _split(self, images: ImageSet, seed: int) -> tuple[Rows, Rows | None]:
        """Which of the train images are fitted and held out, if any."""
        return hold_out(images, self.held_out, seed) if self.held_out else (np.arange(len(images)), None)

    def planned(self, checkpoint: "Checkpoint", train: ImageSet, features: tuple[str, ...], judged: int = 0) -> str:
        """How long the training takes, by the backbone's speed on a few images.

        Args:
            checkpoint: the backbone.
            train: the images.
            features: what is taken of each crop.
            judged: images that the backbone sees at the end of every epoch, too.
        """
        from cgh_bench.core import dist
        from cgh_bench.frozen.cost import measured
        from cgh_bench.frozen.extraction import Work
        from cgh_bench.frozen.training import planned

        targets = tuple(checkpoint.architecture.targets(name) for name in features)
        work = Work(checkpoint, train, self.transform, targets, self.precision)
        rate = measured(work).images_per_second * dist.world_size()
        seen = self.steps * self.batch_size or len(train)
        return planned(seen, self.batch_size, self.epochs, seen + judged, rate)

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images, the first weights, the order and the crops.

        `top1` is of the head that is best on the held-out images after the last epoch. `top1_selected_on_val` is the
        best on val of all heads and epochs: what the literature often prints, and optimistic. `folders.run` gets all
        of them in `epochs.json`. Interrupted, it resumes after the last finished epoch.

        Raises:
            CheckFailed: the backbone has changed.
        """
        from cgh_bench.core import dist
        from cgh_bench.frozen.crops import Batches
        from cgh_bench.frozen.extraction import Work, require_usable
        from cgh_bench.frozen.training import Course, train
        from cgh_bench.outcomes.classification import classification

        images, val = data.train, data.val
        fitted, held = self._split(images, seed)
        with dist.process_group() as device:
            judged = {"val": val} | ({} if held is None else {"held_out": subset(images, held, f"held out, {seed}")})
            probe = self.probe(checkpoint, judged, folders, seed, device)
            state = folders.run / "state.pt"
            if not state.exists():
                require_usable(Work(checkpoint, images, self.transform, ()))
            batches = Batches(images, fitted, self.crop, self.batch_size, seed, self.steps)
            identity = fingerprint([self, checkpoint.id, images.fingerprint, val.fingerprint, seed])
            title = f"probe of {checkpoint.name}, {len(self.grid)} heads"
            course = Course(title, self.epochs, self.schedule, identity, state, device)
            history = train(probe, batches, course)
            probe.require_frozen()
            folders.write("epochs.json", json.dumps({"heads": self.grid, "epochs": history}))
            last = history[-1]
            chosen = int(np.argmax(last.get("held_out_top1", [0.0])))
            predicted, ranks = probe.answers("val", chosen)
            folders.keep(classification(val, predicted.numpy(), ranks.numpy()))
        return {
            "top1": last["val_top1"][chosen],
            **({"top5": last["val_top5"][chosen]} if len(val.classes) > 5 else {}),
            "top1_selected_on_val": max(max(record["val_top1"]) for record in history),
        }
