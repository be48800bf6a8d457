"""Linear probe on frozen, cached features: a softmax classifier for a whole grid of weight decays at once.

The features of the untouched image (no augmentation) are standardised by the train images' mean and deviation, and
the regularised cross-entropy, which is convex, is minimised to its optimum: nothing depends on a learning rate. Weight
decay is chosen on a part of the train images that is held out, never on the images that are reported. With `views`,
random crops of the train images are learned from too; an image is held out in all its views, and judged untouched.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.core.config import later
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS, IMAGENET_CROP, Crop, EvalTransform
from cgh_bench.frozen.selection import Grid, hold_out, require_learnable
from cgh_bench.tasks.base import CONVERGED, TOP5, WORST_GROUP, FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.features import FeatureBank
    from cgh_bench.frozen.probe import Head
    from cgh_bench.frozen.search import Choice


@dataclass(frozen=True)
class Linear(FeatureTask):
    """Classify each val image by the best linear classifier on the train images' features."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("top1"),
        TOP5,
        WORST_GROUP,
        Metric("top1_selected_on_val"),
        CONVERGED,
    )

    weight_decays: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0)
    """Each multiplies half the squared norm of the weights (not of the biases), beside the mean cross-entropy."""
    held_out: float = 0.1
    """The fraction of every class's train images on which the weight decay is chosen."""
    iterations: int = 300
    tolerance: float = 1e-6
    """See `lbfgs.minimise`."""
    views: int = later(0)
    """Random crops of every train image that are learned from beside the untouched one; the same for all seeds."""
    crop: Crop = later(IMAGENET_CROP)  # noqa: RUF009 (it makes a field)
    path: bool = later(False)
    """For many images, where the whole grid takes days without a GPU: each decay is fitted from the optimum of the next
    stronger one, to a hundred times `tolerance`, and only the chosen one is fitted again to all of train, and to
    `tolerance`; `top1_selected_on_val` is then of classifiers that have not seen what is held out (`search.along`)."""

    def __post_init__(self) -> None:
        if not self.weight_decays or min(self.weight_decays) <= 0:
            raise UserError(f"weight_decays {self.weight_decays} must be above zero, so that each optimum is unique")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out {self.held_out} is not a fraction between 0 and 1")
        if self.views < 0:
            raise UserError(f"views {self.views} must not be below 0")
        self._grid()

    def check(self, data: DataPair) -> None:
        """Refuse what no classifier fits, or too few images to hold some out."""
        require_learnable(data.train, data.val)
        hold_out(data.train, self.held_out, seed=0)

    def sets(self, data: DataPair) -> Sequence[tuple[ImageSet, EvalTransform]]:
        """See `FeatureTask`; the train images in their views if there are several."""
        train, *rest = super().sets(data)
        if self.views:
            from cgh_bench.frozen.crops import with_crops

            train = with_crops(data.train, self.transform, self.crop, self.views), AS_IS
        return [train, *rest]

    def effort(self, checkpoint: "Checkpoint", data: DataPair) -> list[str]:
        """Time and memory of the fit."""
        from cgh_bench.frozen import probe

        (seen, _), *_ = self.sets(data)
        return [probe.plan(self.width(checkpoint), seen, self._grid())]

    def choose(self, data: DataPair, train: "FeatureBank", val: "FeatureBank", seed: int) -> "Choice":
        """The classifier, its weight decay chosen on train images that the seed holds out, and what it says of val."""
        from cgh_bench.frozen import search
        from cgh_bench.frozen.crops import in_all_views
        from cgh_bench.frozen.metrics import accuracy

        fitted, held = hold_out(data.train, self.held_out, seed)
        split = in_all_views(fitted, len(data.train), self.views), held
        return search.choose(train, val, split, self._grid(), accuracy)

    def head(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> "Head":
        """The classifier of `choose`: fitted once for each seed, kept in the cache, and shared by all tasks."""
        from cgh_bench.core.config import fingerprint
        from cgh_bench.frozen.features import bank_key
        from cgh_bench.frozen.probe import stored_head

        learned, val, *_ = self.sets(data)
        bank = bank_key(checkpoint.id, *learned, checkpoint.architecture.targets(self.feature), self.precision)
        key = fingerprint([bank, self._grid(), self.held_out, seed])

        def fit() -> "Head":
            train, others = self.banks(checkpoint, (learned, val), folders)
            return self.choose(data, train, others, seed).head

        return stored_head(folders.cache / "heads" / f"{key}.npz", fit)

    def _grid(self) -> Grid:
        return Grid(self.weight_decays, self.iterations, self.tolerance, self.path)

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images.

        `top1` is of the weight decay chosen on the held-out images, refitted on all train images.
        `top1_selected_on_val` is the best of the grid on val: what the literature often prints, and optimistic.
        """
        import torch

        from cgh_bench.frozen.metrics import top5, true_ranks
        from cgh_bench.outcomes.classification import classification

        train, val = self.features(checkpoint, data, folders)
        choice = self.choose(data, train, val, seed)
        record = {
            "weight_decays": self.weight_decays,
            "held_out_top1": choice.held_out,
            "val_top1": choice.val,
            "converged": choice.converged,
            "chosen": self.weight_decays[choice.index],
        }
        folders.write("grid.json", json.dumps(record))
        ranks = true_ranks(choice.scores[:, None], torch.tensor(val.labels))[:, 0]
        best = {"top1_selected_on_val": choice.best == val.labels}
        folders.keep(classification(data.val, choice.scores.argmax(dim=1).numpy(), ranks.numpy(), right=best))
        return {
            "top1": choice.val[choice.index],
            **top5(ranks, len(val.classes)),
            "top1_selected_on_val": max(choice.val),
            "converged": choice.share_converged,
        }


TASKS = {
    "linear": Linear(),
    "imagenet_linear": Linear("imagenet1k"),
    "linear_path": Linear(path=True),
    "imagenet_linear_path": Linear("imagenet1k", path=True),
    "linear_views": Linear(views=4),
    "animals_linear": Linear(data="animals", transform=AS_IS),
    "animals_linear_path": Linear(data="animals", transform=AS_IS, path=True),
    "animals_linear_views": Linear(data="animals", transform=AS_IS, views=4, crop=Crop(48, (0.3, 1.0))),
}
