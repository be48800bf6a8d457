"""Robustness of a linear probe: fitted to clean train images once, then asked about corrupted val images.

Not ImageNet-C's mCE: eight corruptions of its fifteen, made here from any dataset's images, and no division by AlexNet.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.corruptions import CORRUPTIONS, corrupted
from cgh_bench.data.image_set import DataPair, ImageSet
from cgh_bench.data.transform import AS_IS, EvalTransform
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.linear import Linear

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint


@dataclass(frozen=True)
class Corruptions(Linear):
    """Classify val images with noise, blur, lighting changes or compression, by a probe fitted to clean images."""

    METRICS: ClassVar[tuple[Metric, ...]] = (
        Metric("top1_corrupted"),
        Metric("top1"),
        Metric("retained"),
        Metric("top1_worst"),
    )

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corruptions or not self.severities:
            raise UserError("corruptions and severities must name at least one each")

    def sets(self, data: DataPair) -> Sequence[tuple[ImageSet, EvalTransform]]:
        """The clean train and val images, and val under each corruption and severity."""
        damaged = (self.damaged(data.val, *each) for each in product(self.corruptions, self.severities))
        return [*super().sets(data), *((images, AS_IS) for images in damaged)]

    def damaged(self, images: ImageSet, corruption: str, severity: int) -> ImageSet:
        """The images under one corruption, cut already."""
        return corrupted(images, self.transform, corruption, severity)

    def check(self, data: DataPair) -> None:
        """Refuse corruptions and severities that there are not."""
        super().check(data)
        self.sets(data)

    def run(self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the held-out images. `corruptions.csv` has the accuracy of every corruption and severity.

        `top1_corrupted` is the mean over corruptions and severities, `retained` its share of the clean `top1`,
        `top1_worst` the mean over severities of the worst corruption.
        """
        top1, grid = self.accuracies(checkpoint, data, folders, seed)
        return {
            "top1_corrupted": float(grid.mean()),
            "top1": top1,
            "retained": 100 * float(grid.mean()) / top1 if top1 else 0.0,
            "top1_worst": float(grid.mean(axis=1).min()),
        }

    def accuracies(
        self, checkpoint: "Checkpoint", data: DataPair, folders: Folders, seed: int
    ) -> tuple[float, NDArray[np.float64]]:
        """The top-1 of the clean val images, and that of each corruption and severity (C, S), in per cent."""
        from cgh_bench.outcomes.classification import classification

        head = self.head(checkpoint, data, folders, seed)
        _, *asked = self.sets(data)
        clean, *damaged = (
            head.scores(bank.features).argmax(dim=1).numpy() for bank in self.banks(checkpoint, asked, folders)
        )
        right = [images.right(predicted).mean() for (images, _), predicted in zip(asked[1:], damaged, strict=True)]
        grid = 100 * np.array(right).reshape(len(self.corruptions), len(self.severities))
        header = ["corruption", *(f"severity {severity}" for severity in self.severities)]
        rows = ([name, *(f"{value:.2f}" for value in row)] for name, row in zip(self.corruptions, grid, strict=True))
        folders.table("corruptions.csv", header, rows)
        outcomes = classification(data.val, clean, measures={"top1": "top1"})
        folders.keep(outcomes)
        return outcomes.metrics()["top1"], grid


TASKS = {
    "corruptions": Corruptions(),
    "animals_corruptions": Corruptions("animals", AS_IS, severities=(1, 3, 5)),
}
