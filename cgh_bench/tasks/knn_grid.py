"""kNN over a whole grid of features, K and temperatures, chosen on train images that leave themselves out.

The literature prints the best of such a grid on val. Here that number stands beside the one whose choice never saw val.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import AS_IS
from cgh_bench.tasks.base import TOP5, Folders, ImageTask, Metric
from cgh_bench.tasks.knn import require_others, require_positive, search_plan, write_per_class

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair
    from cgh_bench.frozen.features import FeatureBank
    from cgh_bench.frozen.metrics import Ranked

Point = tuple[str, int, float]
"""Feature, K, temperature."""


@dataclass(frozen=True)
class KNNGrid(ImageTask):
    """Classify each val image by kNN, with feature, K and temperature chosen on the train images."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("class_balanced"), Metric("top1_selected_on_val"))

    features: tuple[str, ...] = ("layer3", "layer4", "layer3+layer4")
    ks: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)
    temperatures: tuple[float, ...] = (0.02, 0.05, 0.07, 0.1, 0.2)
    selection_images: int = 10_000
    """Train images, drawn by the seed, that are classified by all the other train images, to choose by."""

    def __post_init__(self) -> None:
        if not (self.features and self.ks and self.temperatures):
            raise UserError("features, ks and temperatures need at least one value each")
        require_positive(*self.ks, *self.temperatures, self.selection_images)

    def check(self, data: "DataPair") -> None:
        """Refuse a multi-label dataset, and a single train image."""
        super().check(data)
        require_others(data.train)

    def plan(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders) -> list[str]:
        """Time and disk of the features, time and memory of each search."""
        from cgh_bench.frozen import features

        plans = (
            features.plan(checkpoint, images, self.transform, self.features, folders.features, self.precision)
            for images in (data.train, data.val)
        )
        sizes = len(data.train), len(data.val) + min(self.selection_images, len(data.train))
        architecture = checkpoint.architecture
        widths = [architecture.width(architecture.targets(name)) for name in self.features]
        return [*chain.from_iterable(plans), *(search_plan(width, sizes, max(self.ks) + 1) for width in widths)]

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """The seed chooses the train images that are chosen by. `grid.json` in the run's folder has every point."""
        from cgh_bench.frozen.features import extract_all
        from cgh_bench.outcomes.classification import classification

        on_train: dict[Point, Ranked] = {}
        on_val: dict[Point, Ranked] = {}
        banks = (
            extract_all(checkpoint, images, self.transform, self.features, folders.features, self.precision)
            for images in (data.train, data.val)
        )
        for feature, train, val in zip(self.features, *banks, strict=True):
            for where, ranked in zip((on_train, on_val), self._both(train, val, seed), strict=True):
                where.update({(feature, *point): answer for point, answer in ranked.items()})
        chosen = max(on_train, key=lambda point: on_train[point].top1)  # the first of equals
        grid = [[*point, on_train[point].top1, on_val[point].top1] for point in on_val]
        names = ["feature", "k", "temperature", "train_top1", "val_top1"]
        folders.write("grid.json", json.dumps({"columns": names, "points": grid, "chosen": chosen}))
        write_per_class(folders, train, val, on_val[chosen])
        best = max(on_val.values(), key=lambda answer: answer.top1)
        folders.keep(classification(data.val, *on_val[chosen].answers, right={"top1_selected_on_val": best.right}))
        return {**on_val[chosen].metrics(), "top1_selected_on_val": best.top1}

    def _both(
        self, train: "FeatureBank", val: "FeatureBank", seed: int
    ) -> "tuple[Mapping[tuple[int, float], Ranked], Mapping[tuple[int, float], Ranked]]":
        """The answers on train images and on val images, from one search for both."""
        from cgh_bench.frozen.metrics import rank, without_self
        from cgh_bench.frozen.neighbours import shared_neighbours

        draw = np.random.default_rng(seed)
        own = np.sort(draw.choice(len(train.labels), min(self.selection_images, len(train.labels)), replace=False))
        queries = np.concatenate([train.features[own], val.features])
        similarity, row = shared_neighbours(train.features, queries, max(self.ks) + 1)
        n, grid = len(own), (sorted(set(self.ks)), self.temperatures)
        others, other_row = without_self(similarity[:n], row[:n], own)
        return (
            rank(others, train.labels[other_row], train.labels[own], len(train.classes), grid),
            rank(similarity[n:], train.labels[row[n:]], val.labels, len(train.classes), grid),
        )


TASKS = {
    "knn_grid": KNNGrid(),
    "animals_knn_grid": KNNGrid(data="animals", transform=AS_IS),
    "imagenet_knn_grid": KNNGrid(data="imagenet1k"),
}
