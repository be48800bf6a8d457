"""What tasks on the maps of a frozen backbone share; of those on maps of classes also the data and the metrics."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data.measured import MeasuredImages
from cgh_bench.data.segmented import SegmentedImages, SegmentedPair, load_segmented
from cgh_bench.tasks.base import D, Folders, FrozenTask, Metric

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.data.image_set import Images
    from cgh_bench.frozen.patches import Patches


Upsampling = Literal["bilinear", "nearest"]
PREDICTIONS = "predictions"
"""The folder of a run with a PNG for each val image, in the values of the dataset's own maps."""


@dataclass(frozen=True)
class MapTask(FrozenTask[D]):
    """A task on the maps of a frozen backbone, whose patches are computed once and kept in the cache."""

    data: str = ""
    size: int = 224
    """Side in pixels of the square that images are resized to (bilinear, antialiased)."""
    feature: str = "layer4"
    """`layer4` is the last feature map of any family (for a transformer, its patch tokens after the final norm)."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"size={self.size} must be at least 1 pixel")

    def patches(self, checkpoint: "Checkpoint", images: "Images", folders: Folders) -> "Patches":
        """The patches of images squashed to `size`; see `frozen.patches.extract_patches`."""
        from cgh_bench.frozen.patches import extract_patches

        return extract_patches(checkpoint, images, self.size, self.feature, folders.features, self.precision)

    def plan_patches(self, checkpoint: "Checkpoint", images: "Images", folders: Folders) -> str:
        """What `patches` would do, and how long that would take, in a line."""
        from cgh_bench.frozen.patches import plan_patches

        return plan_patches(checkpoint, images, self.size, self.feature, folders.features, self.precision)


def require_other_images(train: SegmentedImages | MeasuredImages, val: SegmentedImages | MeasuredImages) -> None:
    """Refuse to report on the images that were learned from."""
    if train.paths == val.paths:
        raise UserError(f"{train.name} and {val.name} contain the same images; val must differ from train")


@dataclass(frozen=True)
class DenseTask(MapTask[SegmentedPair]):
    """A task on images with a class for every pixel."""

    METRICS: ClassVar[tuple[Metric, ...]] = (Metric("mIoU"), Metric("mAcc"), Metric("aAcc"))

    def load_data(self, cache: Path) -> SegmentedPair:
        """The train and the val images with their maps."""
        return load_segmented(self.data, cache)

    def check(self, data: SegmentedPair) -> None:
        """Refuse a single class, and val images that are the train images."""
        if not data.there:  # of the embedded scenes all is known
            return
        if len(data.train.classes) < 2:
            raise UserError(f"{data.name} has one class ({data.train.classes[0]!r}); at least two are needed")
        require_other_images(data.train, data.val)


def predicted_classes(scores: "Tensor", size: tuple[int, ...], upsampling: Upsampling) -> NDArray[np.uint8]:
    """The class with the highest of `scores` (C, h, w), which are resized to `size` (H, W) before it is taken."""
    import torch

    from cgh_bench.frozen.map_losses import resize

    return resize(scores[None], size, upsampling)[0].argmax(dim=0).to(torch.uint8).numpy()


NOT_MADE = "the embedded scenes are made first, in a minute or two; after that --dry-run says what the rest takes"
SHOWN = 6
"""Images in a picture."""


def draw_patches(
    images: "Sequence[Tensor]", features: NDArray[np.float32], grid: tuple[int, int], folders: Folders
) -> None:
    """`pictures/patches.png`: images (3, H, W) above the principal components of their patches (N, P, D) as colours."""
    from cgh_bench.frozen import drawing

    colours = drawing.principal_colours(features, grid)
    rows = [[drawing.picture_of(image) for image in images], [each.resize((256, 256), 0) for each in colours]]
    folders.picture("patches", drawing.sheet([[drawing.tile(each, drawing.NEUTRAL) for each in row] for row in rows]))


def judge(
    images: SegmentedImages,
    predict: Callable[[int, tuple[int, ...]], NDArray[np.uint8]],
    folders: Folders,
    scored: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda truth: truth,
) -> dict[str, float]:
    """Predict every image, write the predictions and the pixels of each image beside the number; the metrics.

    Args:
        images: N, with their maps.
        predict: of image number i the classes (H, W) at a size.
        folders: of the run.
        scored: what the true map is turned into before it is compared; default nothing: the image's own resolution.
    """
    from cgh_bench.core import dist
    from cgh_bench.core.files import replacing
    from cgh_bench.outcomes.base import named_images
    from cgh_bench.outcomes.segmentation import segmentation

    def maps() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        for index, (path, _) in enumerate(images.paths):
            truth = scored(images.both(index)[1])
            predicted = predict(index, truth.shape)
            if dist.rank() == 0:
                with replacing(folders.run / PREDICTIONS / f"{path.stem}.png", flush=False) as file:
                    Image.fromarray(predicted + images.first).save(file)
            yield truth, predicted

    ids = named_images(images.name, [path.stem for path, _ in images.paths], images.fingerprint)
    found = segmentation(ids, images.classes, maps())
    folders.keep(found)
    return found.metrics()
