"""Two classifiers of single patches, without a training loop: k nearest neighbours and logistic regression.

Source: facebookresearch/capi@98b4fa1 eval_segmentation.py. Images are squashed; a patch's label is the commonest class
of its pixels, and train patches whose commonest value is no class are dropped; features are standardised by the train
patches. Hyper-parameters are chosen on images held out of train, then the classifier is fitted to all of train. Scored
as there: every pixel of the squashed map.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.segmented import VOID, SegmentedImages, SegmentedPair
from cgh_bench.frozen.selection import Grid as SearchGrid
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.dense import NOT_MADE, DenseTask, judge

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.patches import Grid, Patches

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class PatchProbe(DenseTask):
    """What both have in common."""

    METRICS: ClassVar = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"), Metric("mIoU_held_out"))

    held_out: float = 0.1
    """The share of the train images, drawn by the seed, that hyper-parameters are chosen on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out={self.held_out:g} must be a share of the train images between 0 and 1")

    def check(self, data: SegmentedPair) -> None:
        """Refuse a single train image, of which none can be held out."""
        super().check(data)
        if data.there and len(data.train) < 2:
            raise UserError(f"{data.train.name} has one image; at least two are needed to hold one out")

    def plan(self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders) -> list[str]:
        """Time and disk of the patches, and memory of what is fitted to them."""
        if not data.there:
            return [NOT_MADE]
        from cgh_bench.frozen import patches

        (rows, columns), width = patches.grid_of(checkpoint, checkpoint.architecture.targets(self.feature), self.size)
        count = rows * columns * len(data.train)
        return [
            *(self.plan_patches(checkpoint, part, folders) for part in (data.train, data.val)),
            f"classifier: {count:,} patches x {width}, at most {self.planned_bytes(count, width, data) / 1e9:.2f} GB",
        ]

    def planned_bytes(self, count: int, width: int, data: SegmentedPair) -> float:
        """The bytes of memory that the classifier needs for `count` train patches of this width."""
        raise NotImplementedError

    def split(self, train: SegmentedImages, per_image: int, seed: int) -> NDArray[np.bool_]:
        """Which of the patches of the train images are held out."""
        count = min(len(train) - 1, max(1, round(self.held_out * len(train))))
        held = np.zeros(len(train), np.bool_)
        held[np.random.default_rng(seed).permutation(len(train))[:count]] = True
        return np.repeat(held, per_image)

    def both(
        self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders
    ) -> "tuple[Patches, Patches, Labels]":
        """The patches of train and val, and the pixels (N * patches, pixels) of those of train."""
        train, val = (self.patches(checkpoint, part, folders) for part in (data.train, data.val))
        return train, val, pixels_of(data.train, self.size, train.grid)

    def scores(
        self, data: SegmentedPair, grid: "Grid", predicted: Callable[[int], Labels], folders: Folders
    ) -> dict[str, float]:
        """The metrics of val; `predicted` gives the classes of the pixels of image i's patches, (P, pixels)."""
        from cgh_bench.frozen.patches import resize_map

        side = self.size

        def whole(index: int, _: tuple[int, ...]) -> Labels:
            (rows, columns), pixels = grid, predicted(index)
            tiles = pixels.reshape(rows, columns, side // rows, side // columns)
            return tiles.transpose(0, 2, 1, 3).reshape(side, side)

        return judge(data.val, whole, folders, lambda truth: resize_map(truth, (side, side)))


@dataclass(frozen=True)
class PatchKnn(PatchProbe):
    """Segment images by the most similar train patches: each pixel gets their most common class at its position.

    mIoU at the resized resolution; k and distance are chosen on held-out train images (`mIoU_held_out`).
    """

    METRICS: ClassVar = PatchProbe.METRICS

    ks: tuple[int, ...] = (1, 3, 10, 30)
    distances: tuple[str, ...] = ("cosine", "l2")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ks or min(self.ks) < 1 or not self.distances or not set(self.distances) <= {"cosine", "l2"}:
            raise UserError(
                f"ks {self.ks} must be at least 1, and distances {self.distances} cosine or l2, one or both"
            )

    def planned_bytes(self, count: int, width: int, data: SegmentedPair) -> float:
        """The bank standardised and once more for a distance, and the pixels."""
        return 3 * 4.0 * count * (width + 2) + len(data.train) * self.size**2

    def run(self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed draws the images that are held out."""
        from cgh_bench.frozen.neighbours import shared_neighbours
        from cgh_bench.frozen.overlap import confusion, segmentation_metrics

        train, val, pixels = self.both(checkpoint, data, folders)
        classes = len(data.train.classes)
        learned = np.flatnonzero(majority(pixels, classes) != VOID)
        held = self.split(data.train, train.per_image, seed)
        mean, deviation = moments(train.features[learned])
        bank = (train.features[learned] - mean) / deviation
        queries = (train.features[np.flatnonzero(held)] - mean) / deviation
        among = learned[~held[learned]]
        _require_some(among, data.train)

        points: dict[tuple[str, int], float] = {}
        for distance in self.distances:
            pair = as_cosine(bank[~held[learned]], queries, distance)
            _, rows = shared_neighbours(*pair, max(self.ks))
            for k in self.ks:
                voted = [
                    votes(pixels[among[part]], classes) for part in np.array_split(rows[:, :k], len(rows) // 64 + 1)
                ]
                counts = confusion(pixels[held], np.concatenate(voted), classes)
                points[distance, k] = segmentation_metrics(counts)["mIoU"]
        distance, k = max(points, key=lambda point: points[point])  # the first of equals
        record = [[*point, value] for point, value in points.items()]
        folders.write("grid.json", json.dumps({"points": record, "chosen": [distance, k]}))

        _, rows = shared_neighbours(*as_cosine(bank, (val.features - mean) / deviation, distance), k)

        def predicted(index: int) -> Labels:
            part = rows[index * val.per_image : (index + 1) * val.per_image]
            return votes(pixels[learned[part]], classes)

        return {**self.scores(data, val.grid, predicted, folders), "mIoU_held_out": points[distance, k]}


@dataclass(frozen=True)
class PatchLogistic(PatchProbe):
    """Segment images by l2-regularised logistic regression on patches; all pixels of a patch get its class.

    mIoU at the resized resolution; the strength is chosen on held-out train images (`mIoU_held_out`).
    """

    METRICS: ClassVar = PatchProbe.METRICS

    cs: tuple[float, ...] = tuple(float(f"{10**exponent:.4g}") for exponent in np.linspace(-6, 5, 8))
    """scikit-learn's C: it multiplies the sum of the cross-entropies, beside half the squared norm of the weights."""
    iterations: int = 1000
    tolerance: float = 1e-5
    """The limit of the largest entry of the gradient of the mean loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.cs, default=0) <= 0:
            raise UserError(f"cs {self.cs} must be above zero, one at least")
        SearchGrid((), self.iterations, self.tolerance)

    def planned_bytes(self, count: int, width: int, data: SegmentedPair) -> float:
        """The classifiers and one slice of patches; the pixels."""
        from cgh_bench.frozen import probe

        fit = probe.planned_bytes(len(self.cs), width, len(data.train.classes), count)
        return fit + 2.0 * len(data.train) * self.size**2

    def run(self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed draws the images that are held out."""
        from dataclasses import replace

        import torch

        from cgh_bench.frozen import probe
        from cgh_bench.frozen.overlap import segmentation_metrics
        from cgh_bench.frozen.patches import class_counts

        train, val, pixels = self.both(checkpoint, data, folders)
        classes = len(data.train.classes)
        labels = majority(pixels, classes)
        held, learned = self.split(data.train, train.per_image, seed), labels != VOID
        _require_some(np.flatnonzero(learned & ~held), data.train)

        def fitted(rows: NDArray[np.int64]) -> tuple[probe.Problem, torch.Tensor]:
            problem = probe.problem(train.features, labels.astype(np.int64), classes, rows)
            decays = tuple(1 / (c * len(rows)) for c in self.cs)
            return problem, probe.fit(problem, decays, self.iterations, self.tolerance)[0]

        some, heads = fitted(np.flatnonzero(learned & ~held))
        answers, _ = probe.judge(replace(some, rows=np.flatnonzero(held)), heads, 0)
        truth = class_counts(pixels[held], classes)
        on_held = [segmentation_metrics(_confusion(truth, column.numpy()))["mIoU"] for column in answers.T]
        index = int(np.argmax(on_held))
        folders.write("grid.json", json.dumps({"cs": self.cs, "held_out": on_held, "chosen": self.cs[index]}))

        every, heads = fitted(np.flatnonzero(learned))
        rows = np.arange(len(val.features))
        on_val = replace(every, features=val.features, labels=np.zeros(len(rows), np.int64), rows=rows)
        chosen = probe.judge(on_val, heads, index)[0][:, index].numpy().astype(np.uint8)

        def predicted(image: int) -> Labels:
            part = chosen[image * val.per_image : (image + 1) * val.per_image]
            return np.repeat(part[:, None], pixels.shape[1], axis=1)

        return {**self.scores(data, val.grid, predicted, folders), "mIoU_held_out": on_held[index]}


def pixels_of(images: SegmentedImages, size: int, grid: "Grid") -> Labels:
    """The true classes of the pixels of all patches of images squashed to `size`, (N * patches, pixels)."""
    from cgh_bench.frozen.patches import patch_pixels, resize_map

    maps = (resize_map(images.both(index)[1], (size, size)) for index in range(len(images)))
    return np.concatenate([patch_pixels(truth, grid) for truth in maps])


def majority(pixels: Labels, classes: int) -> Labels:
    """The commonest value of each patch (P, pixels), of equals the smallest; `VOID` can win."""
    labels = np.empty(len(pixels), np.uint8)
    for first in range(0, len(pixels), 4_096):
        part = pixels[first : first + 4_096]
        places = np.where(part == VOID, classes, part).astype(np.int64) + (classes + 1) * np.arange(len(part))[:, None]
        counts = np.bincount(places.ravel(), minlength=len(part) * (classes + 1)).reshape(-1, classes + 1)
        commonest = counts.argmax(axis=1)
        labels[first : first + 4_096] = np.where(commonest == classes, VOID, commonest)
    return labels


def votes(neighbours: Labels, classes: int) -> Labels:
    """The commonest class at each place of the neighbours (Q, k, pixels), (Q, pixels); of equals the smallest.

    Pixels of no class do not vote.
    """
    counts = np.stack([(neighbours == label).sum(axis=1, dtype=np.int32) for label in range(classes)])
    return counts.argmax(axis=0).astype(np.uint8)


def as_cosine(bank: Floats, queries: Floats, distance: str) -> tuple[Floats, Floats]:
    """Both so that the rows nearest by `distance` are those of highest cosine.

    By Euclidean distance q · x - |x|² / 2 decides. It is the inner product of (q, -s) and (x, |x|² / 2s) for any s; a
    last coordinate that gives all rows of the bank one norm, and is zero in queries, makes it a cosine.
    """
    if distance == "cosine":
        return bank, queries
    squares = (bank.astype(np.float64) ** 2).sum(axis=1)
    scale = float(np.sqrt(squares.mean())) or 1.0
    half = squares / (2 * scale)
    norms = squares + half**2
    rest = np.sqrt(norms.max() - norms)
    longer = np.column_stack([bank, half, rest]).astype(np.float32)
    tails = np.tile(np.array([-scale, 0], np.float32), (len(queries), 1))
    return longer, np.column_stack([queries, tails])


def moments(features: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column; a constant one has deviation 1."""
    deviation = features.std(axis=0, dtype=np.float64)
    return features.mean(axis=0, dtype=np.float64).astype(np.float32), np.where(deviation > 0, deviation, 1).astype(
        np.float32
    )


def _confusion(counts: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The confusion matrix (C, C) of patches with `counts` (P, C) of pixels that are `predicted` (P,) as a whole."""
    matrix = np.zeros((counts.shape[1],) * 2, np.int64)
    np.add.at(matrix.T, predicted, counts)
    return matrix


def _require_some(rows: NDArray[np.int64], train: SegmentedImages) -> None:
    if not len(rows):
        raise UserError(f"no training patch of {train.name} has a class; check the masks")


# ADE20K's 0 is no class; CAPI ignores {0, 255}, too.
TASKS = {
    "patch_knn": PatchKnn(),
    "patch_logistic": PatchLogistic(),
    "animals_patch_knn": PatchKnn("animal_scenes", size=128),
    "animals_patch_logistic": PatchLogistic("animal_scenes", size=128),
    **{f"{name}_patch_knn": PatchKnn(data) for name, data in (("voc", "voc2012_aug"), ("ade20k", "ade20k"))},
    **{f"{name}_patch_logistic": PatchLogistic(data) for name, data in (("voc", "voc2012_aug"), ("ade20k", "ade20k"))},
}
