"""In-context segmentation: labels are carried over from the most similar patches of train images; nothing is trained.

Source: Balazevic et al., Towards In-context Scene Understanding, 2023 (https://arxiv.org/abs/2306.01667,
"Hummingbird"), in the form of vpariza/open-hummingbird-eval@5e79da2, with exact instead of approximate neighbours. A
patch's soft label is the share of its pixels that each class has; a val patch gets the mean of its neighbours' labels,
weighted by softmax(cosine / T); these are upsampled, and the class with most weight is predicted.

Two versions. `hummingbird` has what published numbers were measured with: a memory of random crops with jittered
colours, a channel's deviation of .255 (a typing error for .225), pixels of no class as class 0 in the memory, and maps
that are resized to the network's input before they are scored. `fixed` has none of it: untouched images, the
checkpoint's own preprocessing, no label from pixels of no class, scored at the resolution of the image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.segmented import VOID, SegmentedImages, SegmentedPair
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.dense import NOT_MADE, SHOWN, DenseTask, Upsampling, draw_patches, judge, predicted_classes

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.patches import Grid, Patches

HUMMINGBIRD_STD = (0.229, 0.224, 0.255)
AREAS = (0.5, 2.0)
"""Shares of the image that a crop is asked to have. Those above 1 are impossible: torchvision draws again, and after
ten tries takes the largest in the middle."""
JITTER = 0.1
"""The strengths of brightness, contrast, saturation and hue, each with probability 1/2."""


@dataclass(frozen=True)
class InContext(DenseTask):
    """Segment each val image with the labels of the most similar train patches.

    mIoU over classes, from the pixels of all images together. Writes `predictions/NAME.png`.
    """

    METRICS: ClassVar = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"))

    version: Literal["fixed", "hummingbird"] = "fixed"
    k: int = 30
    temperature: float = 0.02
    memory: int | None = None
    """The most patches in memory: of each image those with the rarest classes, at random among equals. None: all."""
    epochs: int = 1
    """How often `hummingbird` crops each train image; `fixed` has nothing to repeat."""
    labelled: float = 1.0
    """The share of the train images that is remembered, drawn by the seed."""
    upsampling: Upsampling = "bilinear"
    """How the soft labels are resized to the size at which they are scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.k, self.epochs) < 1 or self.temperature <= 0 or not 0 < self.labelled <= 1:
            raise UserError(
                f"k {self.k} and epochs {self.epochs} must be at least 1, temperature {self.temperature} above 0, "
                f"labelled {self.labelled:g} above 0 and up to 1"
            )
        if self.memory is not None and self.memory < 1:
            raise UserError(f"memory={self.memory} must be at least 1 patch, or none for all")
        if self.version == "fixed" and self.epochs != 1:
            raise UserError(f"epochs={self.epochs}: version=fixed uses each image once; only hummingbird has crops")

    def plan(self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders) -> list[str]:
        """Time and disk of the patches, and time and memory of the search."""
        if not data.there:
            return [NOT_MADE]
        from cgh_bench.core.progress import duration
        from cgh_bench.frozen import neighbours, patches

        checkpoint = self._preprocessed(checkpoint)
        grid, width = patches.grid_of(checkpoint, checkpoint.architecture.targets(self.feature), self.size)
        memories = self._memories(data.train, 0)
        each = self._kept(memories, grid)
        rows, queries = each * sum(map(len, memories)), len(data.val) * grid[0] * grid[1]
        seconds = neighbours.planned_seconds(rows, queries, width, self.k)
        at_once = min(queries, neighbours.QUERIES_PER_PASS)
        megabytes = neighbours.planned_bytes(rows, at_once, width, self.k) / 1e6
        labels = 2 * rows * len(data.train.classes) / 1e6
        copied = 4 * rows * width / 1e9 if each < grid[0] * grid[1] else 0.0
        return [
            *(self.plan_patches(checkpoint, part, folders) for part in (*memories, data.val)),
            f"memory: {rows:,} patches x {width} ({each} of each image), {labels:,.0f} MB of labels in memory"
            + (f", {copied:.2f} GB on disk while it runs" if copied else ""),
            f"search: {queries:,} patches, {self.k} neighbours, about {duration(seconds)}, at most {megabytes:,.0f} MB",
        ]

    def run(self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed draws the images and patches that are remembered, and the crops of `hummingbird`."""
        import torch

        from cgh_bench.frozen.neighbours import shared_neighbours
        from cgh_bench.frozen.patches import resize_map

        checkpoint = self._preprocessed(checkpoint)
        features, labels = self._memory(checkpoint, data.train, folders, seed)
        queries = self.patches(checkpoint, data.val, folders)
        found = _found(queries, lambda part: shared_neighbours(features, part, self.k))

        def predict(index: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
            similarity, rows = next(found)
            weights = (torch.from_numpy(similarity).double() / self.temperature).softmax(dim=1)
            pixels = torch.from_numpy(labels[rows].astype(np.float64))
            soft = torch.einsum("qk,qkc->qc", weights, pixels / pixels.sum(dim=2, keepdim=True))
            return predicted_classes(soft.T.reshape(-1, *queries.grid), size, self.upsampling)

        def scored(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return truth if self.version == "fixed" else resize_map(truth, (self.size, self.size))

        metrics = judge(data.val, predict, folders, scored)
        shown = range(min(SHOWN, len(data.val)))
        some = np.stack([queries.of_image(index) for index in shown])
        draw_patches([data.val.image(index) for index in shown], some, queries.grid, folders)
        (folders.run / "memory.npy").unlink(missing_ok=True)
        return metrics

    def _preprocessed(self, checkpoint: "Checkpoint") -> "Checkpoint":
        if self.version == "fixed":
            return checkpoint
        from cgh_bench.data.preprocessing import Preprocessing

        return replace(checkpoint, preprocessing=Preprocessing(std=HUMMINGBIRD_STD))

    def _memories(self, train: SegmentedImages, seed: int) -> list[SegmentedImages]:
        """The images that are remembered, once for each epoch."""
        count = max(1, round(self.labelled * len(train)))
        if count < len(train):
            rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:count])
            train = train.subset(rows)
        if self.version == "fixed":
            return [train]
        return [cropped(train, self.size, seed, epoch) for epoch in range(self.epochs)]

    def _kept(self, memories: list[SegmentedImages], grid: "Grid") -> int:
        """Patches of each image."""
        every = grid[0] * grid[1]
        return every if self.memory is None else min(every, max(1, self.memory // sum(map(len, memories))))

    def _memory(
        self, checkpoint: "Checkpoint", train: SegmentedImages, folders: Folders, seed: int
    ) -> "tuple[NDArray[np.float32], NDArray[np.uint16]]":
        """The patches (M, D) that are remembered and how many pixels of each have each class, (M, C)."""
        from cgh_bench.frozen.patches import class_counts, patch_pixels, resize_map

        memories = self._memories(train, seed)
        parts: list[tuple[Patches, NDArray[np.int64]]] = []
        labels: list[NDArray[np.uint16]] = []
        draw = np.random.default_rng([seed, 1])
        for images in memories:
            patches = self.patches(checkpoint, images, folders)
            each, kept = self._kept(memories, patches.grid), []
            for index in range(len(images)):
                truth = resize_map(images.both(index)[1], (self.size, self.size))
                if self.version == "hummingbird":
                    truth = np.where(truth == VOID, 0, truth).astype(np.uint8)
                counts = class_counts(patch_pixels(truth, patches.grid), len(images.classes))
                rows = rarest(counts, each, draw)
                labels.append(counts[rows].astype(np.uint16))
                kept.append(index * patches.per_image + rows)
            parts.append((patches, np.concatenate(kept)))
        counted = np.concatenate(labels)
        if not len(counted):
            raise UserError(f"no pixel of {train.name} ({len(train)} images) has a class; check the masks")
        if len(parts) == 1 and len(parts[0][1]) == len(parts[0][0].features):
            return parts[0][0].features, counted
        return _written(parts, folders), counted


def rarest(counts: NDArray[np.int64], most: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """The rows of at most `most` patches of an image, sorted; those without a class are left out.

    Args:
        counts: (P, C) pixels of each class in each patch.
        most: of all, the smallest scores are taken: the sum, over the classes in a patch, of the number of patches
            that have the class, times a number drawn from [0, 1).
        draw: gives a number for each patch that has a class.
    """
    present = counts > 0
    rows = np.flatnonzero(present.any(axis=1))
    if len(rows) <= most:
        return rows
    scores = present[rows] @ present.sum(axis=0) * draw.random(len(rows))
    return np.sort(rows[np.argsort(scores, kind="stable")[:most]])


def cropped(images: SegmentedImages, size: int, seed: int, epoch: int) -> SegmentedImages:
    """Each image and map cut at random and resized to `size`; the image's colours are jittered.

    An image's crop depends on the seed, the epoch and its number alone.
    """
    import torch
    from torchvision.transforms import ColorJitter, RandomApply, RandomResizedCrop
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    colours = [ColorJitter(**{name: JITTER}) for name in ("brightness", "contrast", "saturation", "hue")]
    jitter = torch.nn.Sequential(*(RandomApply([each], 0.5) for each in colours))

    def view(index: int, image: "Tensor", truth: NDArray[np.uint8]) -> "tuple[Tensor, NDArray[np.uint8]]":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([seed, epoch, index]).generate_state(1)[0]))
            box = RandomResizedCrop.get_params(image, AREAS, (3 / 4, 4 / 3))
            cut = F.resized_crop(image, *box, [size, size], InterpolationMode.BILINEAR, antialias=True)
            classes = F.resized_crop(torch.from_numpy(truth)[None], *box, [size, size], InterpolationMode.NEAREST_EXACT)
            return jitter(cut), classes[0].numpy()

    return images.seen(view, f"crops of {size}, {AREAS}, {JITTER}, seed {seed}, epoch {epoch}")


Found = tuple[NDArray[np.float32], NDArray[np.int64]]


def _found(queries: "Patches", search: Callable[[NDArray[np.float32]], Found]) -> Iterator[Found]:
    """The neighbours of the patches of each image in turn, searched for as many images at a time as one pass takes."""
    from cgh_bench.frozen.neighbours import QUERIES_PER_PASS

    each = queries.per_image
    at_a_time = max(1, QUERIES_PER_PASS // each) * each
    for start in range(0, len(queries.features), at_a_time):
        similarity, rows = search(queries.features[start : start + at_a_time])
        for first in range(0, len(rows), each):
            yield similarity[first : first + each], rows[first : first + each]


def _written(parts: "list[tuple[Patches, NDArray[np.int64]]]", folders: Folders) -> NDArray[np.float32]:
    """The chosen rows of several banks as one, in the run's folder."""
    from numpy.lib.format import open_memmap

    from cgh_bench.core import dist

    path = folders.run / "memory.npy"
    if dist.rank() == 0:
        count, width = sum(len(rows) for _, rows in parts), parts[0][0].features.shape[1]
        memory = open_memmap(path, "w+", np.float32, (count, width))  # type: ignore[no-untyped-call]
        start = 0
        for patches, rows in parts:
            for block in np.array_split(rows, max(1, len(rows) // 16_384)):
                memory[start : start + len(block)] = patches.features[block]
                start += len(block)
        memory.flush()
    dist.wait_for_all()
    return np.load(path, mmap_mode="r")


FULL = 10_240_000
"""Patches in the memory of the published column."""

TASKS = {
    "incontext": InContext(),
    "animals_incontext": InContext("animal_scenes", size=128),
    # At 128 pixels a ResNet has 4 x 4 patches, almost all of them background. To keep this cheap, the patches with the
    # rarest classes of a fifth of the images are remembered.
    "animals_incontext_fine": InContext("animal_scenes", size=256, labelled=0.2, memory=2_500),
    "voc_incontext": InContext("voc2012_aug", size=512),
    # Published at 512 pixels for patches of 16 and at 504 for those of 14, with two epochs of crops.
    "voc_incontext_hummingbird": InContext("voc2012_aug", size=512, version="hummingbird", memory=FULL, epochs=2),
    "ade20k_incontext": InContext("ade20k", size=512),
    "cityscapes_incontext": InContext("cityscapes", size=512),
    **{f"voc_incontext_{part}": InContext("voc2012_aug", size=512, labelled=1 / part) for part in (8, 64, 128)},
    **{f"ade20k_incontext_{part}": InContext("ade20k", size=512, labelled=1 / part) for part in (8, 64, 128)},
}
