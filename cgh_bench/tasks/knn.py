"""Weighted k-nearest-neighbour classification on frozen features.

Source: Wu et al., Instance Discrimination, CVPR 2018 (https://arxiv.org/abs/1805.01978, eq. 7 and 8), in the form that
facebookresearch/dino `eval_knn.py` made usual: cosine similarity s, a neighbour votes exp(s / T) for its class.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cgh_bench.core.errors import UserError
from cgh_bench.data.imagenet import CATALOG as IMAGENET
from cgh_bench.data.inaturalist import CATALOG as INATURALIST
from cgh_bench.data.medmnist import CATALOG as MEDMNIST
from cgh_bench.data.small_pictures import CATALOG as SMALL_PICTURES
from cgh_bench.data.transfer_suite import CATALOG as TRANSFER_SUITE
from cgh_bench.data.transform import AS_IS, IMAGENET_KNN, IMAGENET_LINEAR
from cgh_bench.data.wilds import CATALOG as WILDS
from cgh_bench.tasks.base import TOP5, WORST_GROUP, FeatureTask, Folders, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data import DataPair, ImageSet
    from cgh_bench.frozen.features import FeatureBank
    from cgh_bench.frozen.metrics import Ranked

RETRIEVED = 10
"""Neighbours kept for the retrieval pictures."""


@dataclass(frozen=True)
class KNN(FeatureTask):
    """Classify each val image by the weighted votes of its nearest train images."""

    METRICS: ClassVar = (Metric("top1"), TOP5, Metric("class_balanced"), WORST_GROUP)

    k: int = 20
    """The K of `top1`, `top5` and `class_balanced`."""
    k_grid: tuple[int, ...] = (10, 20, 100, 200)
    """Every K whose top-1 is reported, as `top1_k10`, …, from one search."""
    temperature: float = 0.07

    def __post_init__(self) -> None:
        require_positive(self.k, *self.k_grid, self.temperature)

    def effort(self, checkpoint: "Checkpoint", data: "DataPair") -> list[str]:
        """Time and memory of the search."""
        return [search_plan(self.width(checkpoint), (len(data.train), len(data.val)), self._deepest())]

    def run(self, checkpoint: "Checkpoint", data: "DataPair", folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters."""
        from cgh_bench.frozen.metrics import rank
        from cgh_bench.frozen.neighbours import shared_neighbours
        from cgh_bench.outcomes.classification import classification

        train, val = self.features(checkpoint, data, folders)
        similarity, row = shared_neighbours(train.features, val.features, self._deepest())
        grid = sorted({self.k, *self.k_grid}), [self.temperature]
        ranked = rank(similarity, train.labels[row], val.labels, len(train.classes), grid)
        chosen = ranked[self.k, self.temperature]
        folders.save("neighbours.npz", row=row[:, :RETRIEVED], similarity=similarity[:, :RETRIEVED])
        other = {f"top1_k{k}": ranked[k, self.temperature].right for k in self.k_grid}
        folders.keep(classification(data.val, *chosen.answers, right=other))
        write_per_class(folders, train, val, chosen)
        return {
            **chosen.metrics(),
            **{f"top1_k{k}": ranked[k, self.temperature].top1 for k in self.k_grid},
        }

    def _deepest(self) -> int:
        return max(self.k, *self.k_grid, RETRIEVED)


def require_positive(*values: float) -> None:
    """Refuse a K or temperature that is not above zero."""
    if min(values) <= 0:
        raise UserError(f"k and temperature must be above zero, not {', '.join(map(str, values))}")


def require_others(images: "ImageSet") -> None:
    """Refuse a single image, which has no others to be classified by."""
    if len(images) < 2:
        raise UserError(f"{images.name} has one image; leave-one-out needs at least two")


def search_plan(width: int, sizes: tuple[int, int], k: int) -> str:
    """What the search for `k` neighbours needs, in a line; `sizes` are the images in the bank and those classified."""
    from cgh_bench.core import dist
    from cgh_bench.core.progress import duration
    from cgh_bench.frozen.neighbours import planned_bytes, planned_seconds

    n, q = sizes
    what = f"search: {q:,} images in a bank of {n:,} × {width}, {k} neighbours"
    time = duration(planned_seconds(n, q, width, k) / dist.world_size())
    return f"{what}, about {time}, at most {planned_bytes(n, q, width, k) / 1e6:,.0f} MB of memory"


def write_per_class(folders: Folders, train: "FeatureBank", val: "FeatureBank", ranked: "Ranked") -> None:
    """`per_class.csv` of the run: how many images of each class there are, and how many were classified right."""
    rows = []
    for label, name in enumerate(train.classes):
        shown = val.labels == label
        count, hits = int(shown.sum()), int(ranked.right[shown].sum())
        accuracy = f"{100 * hits / count:.2f}" if count else ""
        rows.append([name, int((train.labels == label).sum()), count, hits, accuracy])
    folders.table("per_class.csv", ["class", "train", "val", "right", "accuracy"], rows)


def _suite() -> dict[str, KNN]:
    """One of each fetched set that has one class per image, under the set's own transform (kNN's for ImageNet)."""
    entries = {**SMALL_PICTURES, **TRANSFER_SUITE, **WILDS, **INATURALIST, **MEDMNIST, **IMAGENET}
    return {
        f"{name}_knn": KNN(data=name, transform=IMAGENET_KNN if entry.transform == IMAGENET_LINEAR else entry.transform)
        for name, entry in entries.items()
        if entry.metric != "mAP" and name != "imagenet1k"
    }


TASKS = {
    "knn": KNN(),
    "animals_knn": KNN(data="animals", transform=AS_IS),
    "imagenet_knn": KNN(data="imagenet1k"),
    **_suite(),
}
