"""Object discovery: one box for each image, found without labels by LOST (`frozen.discovery`)."""

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.errors import UserError
from cgh_bench.data.decoding import read_image
from cgh_bench.data.dense import locate
from cgh_bench.data.ground_truth import boxed_images
from cgh_bench.tasks.base import Folders, FrozenTask, Metric

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.outcomes.scores import Scores

DRAWN = 12
OVERLAP = 0.5
"""Intersection over union from which an object counts as found."""
Boxes = NDArray[np.float64]
"""(n, 4) left, top, right, bottom in pixels."""


@dataclass(frozen=True, eq=False)
class BoxedImages:
    """Images and the boxes of their objects; those without an object are left out."""

    name: str
    images: tuple[tuple[Path, Boxes], ...]
    fingerprint: str
    subset: str = ""


@dataclass(frozen=True)
class Discovery(FrozenTask[BoxedImages]):
    """Find one object in each image without labels.

    `CorLoc`: the share of images whose box has an IoU of at least .5 with any object; `IoU`: the mean of the best IoU;
    `recall`: the share of all objects found. `boxes.json` has the boxes in COCO format, with a single class.
    """

    METRICS: ClassVar = (Metric("CorLoc"), Metric("IoU"), Metric("recall"))

    data: str
    part: int = 0
    """Which images of the dataset's layout."""
    short: int | None = None
    """Pixels that the short side is resized to, bilinear with antialiasing; None leaves images as they are."""
    most: int = 100
    """Positions that may join the seed (`k_patches`)."""

    def __post_init__(self) -> None:
        if self.most < 1 or (self.short is not None and self.short < 1):
            raise UserError(f"most {self.most} and short {self.short} must be at least 1, or short none")

    def load_data(self, cache: Path) -> BoxedImages:
        """The images that have an object."""
        located = locate(self.data, cache)
        found = tuple(each for each in boxed_images(self.data, self.part, located) if len(each[1]))
        if not found:
            raise UserError(f"no image of part {self.part} of {self.data} has an object")
        return BoxedImages(self.data, found, located.fingerprint, located.subset)

    def plan(self, checkpoint: "Checkpoint", data: BoxedImages, folders: Folders) -> list[str]:
        """Time, by the speed of the first image."""
        import time

        from cgh_bench.core import dist
        from cgh_bench.core.progress import duration

        self._boxes(checkpoint, data, range(1))  # the first time is slower
        start = time.perf_counter()
        self._boxes(checkpoint, data, range(1))
        seconds = (time.perf_counter() - start) * len(data.images) / dist.world_size()
        return [f"boxes of {len(data.images):,} images, one at a time: about {duration(seconds)}; nothing is cached"]

    def run(self, checkpoint: "Checkpoint", data: BoxedImages, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters. Of several processes each takes some of the images."""
        from cgh_bench.core import dist
        from cgh_bench.frozen.discovery import overlaps

        mine = range(len(data.images))[dist.share(len(data.images))]
        found = list(chain.from_iterable(dist.gather_shares(self._boxes(checkpoint, data, mine))))
        shares = [overlaps(box, boxes) for box, (_, boxes) in zip(found, data.images, strict=True)]
        lines = [
            {"file_name": path.name, "category_id": 1, "bbox": [*box[:2], *(box[2:] - box[:2])], "score": 1.0}
            for box, (path, _) in zip(found, data.images, strict=True)
        ]
        folders.write("boxes.json", json.dumps(lines))
        _draw(data, found, shares, folders)
        outcomes = _outcomes(data, shares)
        folders.keep(outcomes)
        return outcomes.metrics()

    def _boxes(self, checkpoint: "Checkpoint", data: BoxedImages, numbers: range) -> list[NDArray[np.float64]]:
        """The box of each of these images."""
        import torch

        from cgh_bench.core.device import arithmetic, pick_device
        from cgh_bench.core.dist import rank
        from cgh_bench.core.progress import progress
        from cgh_bench.frozen.discovery import object_box, positions

        backbone, device, found = checkpoint.backbone(copy=False), pick_device(), []
        backbone = backbone.to(device)
        stride = list(backbone.stages.values())[-1].stride
        title = f"objects of {data.name}" + (f", process {rank()}" if rank() else "")
        with torch.inference_mode(), arithmetic(self.precision, device), progress(title, len(numbers)) as tick:
            for done, number in enumerate(numbers, start=1):
                image = read_image(data.images[number][0])
                padded, (height, width) = self._padded(checkpoint, image, stride)
                features, grid = positions(backbone, padded.to(device))
                pixels = padded.shape[2] / grid[0], padded.shape[3] / grid[1]
                box = object_box(features.float(), grid, pixels, self.most)
                factor = np.tile([image.shape[2] / width, image.shape[1] / height], 2)
                found.append(np.minimum(box, [width, height, width, height]) * factor)
                tick(done)
        return found

    def _padded(self, checkpoint: "Checkpoint", image: "Tensor", stride: int) -> "tuple[Tensor, tuple[int, int]]":
        """An image (3, H, W) as the network's input, padded with zeros to whole patches, and its size before."""
        import torch
        from torchvision.transforms.v2 import functional as F

        from cgh_bench.data.transform import to_unit

        if self.short is not None:
            image = F.resize(image, [self.short], antialias=True)
        height, width = image.shape[1:]
        beyond = (0, -width % stride, 0, -height % stride)
        inputs = checkpoint.preprocessing(to_unit(image))[None]
        return torch.nn.functional.pad(inputs, beyond), (height, width)


def _outcomes(data: BoxedImages, shares: list[NDArray[np.float64]]) -> "Scores":
    from cgh_bench.outcomes.base import named_images
    from cgh_bench.outcomes.scores import Scores

    best = np.array([float(each.max()) for each in shares])
    return Scores(
        images=named_images(data.name, [path.name for path, _ in data.images], data.fingerprint),
        classes=("object",),
        measures={"CorLoc": "mean", "IoU": "mean", "recall": "weight"},
        target=np.zeros(len(shares), np.int64),
        weight=np.array([len(each) for each in shares]),
        value={
            "CorLoc": np.where(best >= OVERLAP, 100.0, 0.0),
            "IoU": 100 * best,
            "recall": 100 * np.array([(each >= OVERLAP).mean() for each in shares]),
        },
    )


def _draw(
    data: BoxedImages, found: list[NDArray[np.float64]], shares: list[NDArray[np.float64]], folders: Folders
) -> None:
    """`pictures/boxes.png`: some images with the true boxes in grey and that found in green, or red if it is none."""
    from cgh_bench.frozen import drawing

    tiles = []
    for number in np.unique(np.linspace(0, len(found) - 1, DRAWN).round().astype(int)).tolist():
        path, true = data.images[number]
        colour = drawing.RIGHT if shares[number].max() >= OVERLAP else drawing.WRONG
        shown = [(box.tolist(), drawing.NEUTRAL) for box in true] + [(found[number].tolist(), colour)]
        tiles.append(drawing.tile(drawing.boxes(drawing.picture_of(read_image(path)), shown), drawing.NEUTRAL))
    folders.picture("boxes", drawing.sheet([tiles[start : start + 6] for start in range(0, len(tiles), 6)]))


TASKS = {
    "animals_discovery": Discovery("animal_scenes", short=256),
    # valeoai/LOST main_lost.py: trainval of each year, difficult objects included.
    "voc07_discovery": Discovery("voc0712", part=0),
    "voc12_discovery": Discovery("voc0712", part=1),
    "coco20k_discovery": Discovery("coco20k"),
}
