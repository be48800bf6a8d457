"""Monocular depth from a frozen backbone: BatchNorm and a linear layer to 256 bins of depth at every patch.

`nyu_depth` is the recipe of facebookresearch/dinov3@6876159 (eval/depth, with the values of its config-nyu.yaml);
`kitti_depth` has the same head and schedule, with the range, the crop and the part that is scored of
zhyever/Monocular-Depth-Estimation-Toolbox, in which DINOv2's depth was trained. A depth of zero is unknown: such
pixels neither teach nor count. Metrics are the mean over images, each over its own pixels. DINOv2's released heads
expect pixels from 0 to 255, DINOv3's from 0 to 1; here preprocessing is the checkpoint's.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.descent import HeadTraining
from cgh_bench.core.errors import UserError
from cgh_bench.data.measured import MILLIMETRES, MeasuredImages, Values
from cgh_bench.tasks.base import Folders, Metric
from cgh_bench.tasks.measured import MeasuredTask

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.dense_head import DenseHead, Examples
    from cgh_bench.frozen.patches import Grid, LiveMaps

BINS = 256
CLOSE = 1.25
"""delta1: the larger of both depths is less than this number of times the smaller."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Depth(MeasuredTask):
    """Predict the depth of every pixel by a linear layer on each patch of the frozen backbone.

    Metrics: root mean squared error in metres, absolute error relative to the ground truth, and the share of pixels
    within a factor of 1.25 of it. Writes `depth/NUMBER.png` in millimetres.
    """

    METRICS: ClassVar = (
        Metric("rmse", "m", higher_is_better=False),
        Metric("abs_rel", "", higher_is_better=False),
        Metric("delta1"),
    )
    QUANTITY: ClassVar = "depth"
    CHANNELS: ClassVar = BINS

    least: float = 1e-3
    most: float = 10.0
    """Metres: where the bins begin and end; a truth outside does not count."""
    crop: tuple[int, int] | None = None
    """Height and width of random parts that are trained on, turned a little, mirrored, lighter or darker; the backbone
    runs for every batch. None: whole images squashed, whose features are cached."""
    box: Box | None = None
    """The part of train images that crops are taken from."""
    scored: Literal["all", "eigen", "garg"] = "all"
    """The part of val images that counts: NYUv2's of Eigen, in pixels, or KITTI's of Garg, in shares."""
    mirrored: bool = False
    """Whether the prediction is the mean of those for the image and its mirror image; for `test=whole` only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.least < self.most:
            raise UserError(f"least {self.least:g} and most {self.most:g} must be above 0 and in this order")
        if self.mirrored and self.test != "whole":
            raise UserError("mirrored=true needs test=whole")

    def examples(self, checkpoint: "Checkpoint", train: MeasuredImages, folders: Folders) -> "Examples":
        """Cached patches, or random crops."""
        if self.crop is None:
            return super().examples(checkpoint, train, folders)
        from cgh_bench.frozen.dense_head import Computed
        from cgh_bench.frozen.patches import LiveMaps

        return Computed(LiveMaps(checkpoint, self.feature, self.precision), train, self._cropped, self.crop)

    def _cropped(self, image: "Tensor", truth: Values) -> "tuple[Tensor, Values]":
        """A view for training; a method, so that processes that are spawned get it."""
        from cgh_bench.data.map_views import turned_crop

        assert self.crop
        left, top, right, bottom = self.box or (0, 0, None, None)
        return turned_crop(image[:, top:bottom, left:right], truth[top:bottom, left:right], self.crop)

    def loss(self, outputs: "Tensor", truth: "Tensor", grid: "Grid", step: int) -> "Tensor":
        """SigLoss of the depths that are known and within the range."""
        from cgh_bench.frozen.map_losses import sig_loss

        depth = self.decoded(outputs, grid, (truth.shape[1], truth.shape[2]))
        return sig_loss(depth, truth, (truth > self.least) & (truth <= self.most), step)

    def decoded(self, outputs: "Tensor", grid: "Grid", size: tuple[int, int]) -> "Tensor":
        """The expected depth of the bins, resized."""
        import torch

        from cgh_bench.frozen.map_losses import depth_of_bins, resize

        bins = torch.linspace(self.least, self.most, BINS, device=outputs.device)
        depth = depth_of_bins(outputs, bins).view(-1, 1, *grid)
        return resize(depth, size, self.upsampling)[:, 0]

    def _whole(self, live: "LiveMaps", head: "DenseHead", image: "Tensor") -> Values:
        depth = super()._whole(live, head, image)
        if not self.mirrored:
            return depth
        mean: Values = np.mean([depth, super()._whole(live, head, image.flip(2))[:, ::-1]], axis=0, dtype=np.float32)
        return mean

    def errors(self, predicted: Values, truth: Values) -> dict[str, float]:
        """See `MeasuredTask`; predictions are clipped to the range."""
        known = (truth > self.least) & (truth < self.most) & scored_part(truth.shape, self.scored)
        if not known.any():
            return dict.fromkeys(("rmse", "abs_rel", "delta1"), float("nan"))
        found, true = (
            np.clip(predicted[known].astype(np.float64), self.least, self.most),
            truth[known].astype(np.float64),
        )
        ratio = np.maximum(found / true, true / found)
        return {
            "rmse": float(np.sqrt(np.mean((found - true) ** 2))),
            "abs_rel": float(np.mean(np.abs(found - true) / true)),
            "delta1": 100 * float(np.mean(ratio < CLOSE)),
        }

    def drawn(self, truth: Values, predicted: Values) -> list[Image.Image]:
        """From near, yellow, to far, violet."""
        from cgh_bench.frozen.drawing import shades

        known = truth[truth > 0]
        return [shades(values, float(known.min()), float(known.max())) for values in (truth, predicted)]

    def picture(self, predicted: Values) -> NDArray[np.uint16]:
        """Millimetres; 65 metres at most."""
        return np.clip(np.rint(predicted * MILLIMETRES), 0, np.iinfo(np.uint16).max).astype(np.uint16)


def scored_part(shape: tuple[int, ...], part: Literal["all", "eigen", "garg"]) -> NDArray[np.bool_]:
    """Which pixels (H, W) count."""
    height, width = shape
    counted = np.zeros(shape, np.bool_)
    if part == "garg":  # Garg et al. 2016
        rows, columns = (0.40810811, 0.99189189), (0.03594771, 0.96405229)
        counted[int(rows[0] * height) : int(rows[1] * height), int(columns[0] * width) : int(columns[1] * width)] = True
    elif part == "eigen":  # of images of 480 x 640
        counted[45:471, 41:601] = True
    else:
        counted[:] = True
    return counted


# "final_div 1000" is read as the share of the rate that the schedule ends at.
DINOV3 = HeadTraining(rate=3e-4, iterations=38_400, betas=(0.9, 0.99), decay=1e-4, warmup=12_800, last=1e-3, clip=35.0)
NYU = Depth(
    "nyuv2",
    training=DINOV3,
    test="whole",
    crop=(416, 544),
    box=(43, 45, 608, 472),
    scored="eigen",
    mirrored=True,
)

TASKS = {
    "depth": Depth(),
    "animals_depth": Depth("animal_scenes", size=256),
    "nyu_depth": NYU,
    "kitti_depth": replace(NYU, data="kitti_depth", most=80.0, crop=(352, 704), box=None, scored="garg"),
}
