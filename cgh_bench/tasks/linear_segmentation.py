"""Linear segmentation: BatchNorm and a linear layer on each patch of a frozen backbone, trained on pixels' classes.

Three versions, each with its name. `*_dense_linear` sees the same windows in training as in the test, so that features
are computed once and kept. `*_dinov3` is the recipe of facebookresearch/dinov3@6876159 (eval/segmentation, with the
values of its config-ade20k-linear-training.yaml), `*_bnhead` that of DINOv2's head in the only public code that trains
it, NVlabs/RADIO@c0f3701 mmseg/configs/radio/radio_linear_8xb2-80k_ade20k-512x512.py; both see random crops, and the
backbone runs for every batch. Reported is the last head; DINOv3's code reports the best of its evaluations on val.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.descent import HeadTraining
from cgh_bench.core.errors import UserError
from cgh_bench.data.segmented import SegmentedImages, SegmentedPair
from cgh_bench.data.windows import Windows
from cgh_bench.tasks.base import Folders
from cgh_bench.tasks.dense import NOT_MADE, SHOWN, DenseTask, Upsampling, draw_patches, judge, predicted_classes

if TYPE_CHECKING:
    from torch import Tensor

    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.dense_head import DenseHead, Examples
    from cgh_bench.frozen.patches import Grid

Predict = Callable[[int, tuple[int, ...]], NDArray[np.uint8]]
"""The classes of the pixels of image number i at a size (H, W)."""


DINOV3_TRAINING = HeadTraining(rate=1e-3, iterations=40_000, decay=1e-3, warmup=1_500, dropout=0.1)
SHORT_TRAINING = replace(DINOV3_TRAINING, iterations=1_000, warmup=100)
RADIO_TRAINING = HeadTraining(rate=1e-3, iterations=80_000, warmup=1_500, fall="linear")


@dataclass(frozen=True)
class LinearSegmentation(DenseTask):
    """Segment images with a linear layer on each patch of the frozen backbone, scored at the image's resolution.

    mIoU over classes, from the pixels of all images together. Writes `predictions/NAME.png`.
    """

    METRICS = DenseTask.METRICS

    size: int = 512
    """Pixels a side of what the backbone sees at a time: windows, or random crops."""
    short_side: int = 512
    """What the short side of every image is resized to."""
    stride: int = 341
    """Pixels from one window to the next."""
    view: Literal["windows", "crops"] = "windows"
    """What is trained on: the windows of the test, whose features are cached, or random crops."""
    loss: Literal["patches", "pixels"] = "patches"
    """The cross-entropy of every pixel where it has the scores of its patch, or those resized to pixels, bilinear."""
    test: Literal["windows", "whole"] = "windows"
    """Mean probabilities of windows, or the whole image, padded to a multiple of the side of a patch."""
    training: HeadTraining = DINOV3_TRAINING
    upsampling: Upsampling = "bilinear"
    """How scores are resized to pixels in the test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.short_side, self.stride) < 1:
            raise UserError(f"short_side {self.short_side} and stride {self.stride} must be at least 1 pixel")

    def check(self, data: SegmentedPair) -> None:
        """Refuse what every dense task does, and windows that do not fit."""
        super().check(data)
        if data.there and "windows" in (self.view, self.test):
            self.windows(data.val)

    def windows(self, images: SegmentedImages) -> Windows:
        """The windows of images."""
        return Windows(images, self.size, self.short_side, self.stride)

    def plan(self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders) -> list[str]:
        """Time and disk of the patches, and time of the training."""
        if not data.there:
            return [NOT_MADE]
        from cgh_bench.core import dist
        from cgh_bench.frozen import patches
        from cgh_bench.frozen.cost import measured
        from cgh_bench.frozen.training import planned

        train = self.windows(data.train)
        kept = [train] * (self.view == "windows") + [self.windows(data.val)] * (self.test == "windows")
        lines = [self.plan_patches(checkpoint, part, folders) for part in kept]
        if self.view == "windows":
            maps = len(train) * self.size**2 / 1e9
            return [
                *lines,
                f"head: {self.training.iterations:,} steps on cached patches, {maps:.2f} GB of maps on disk",
            ]
        targets = (checkpoint.architecture.targets(self.feature),)
        work = patches.PatchWork(checkpoint, train, patches.squashed(self.size), targets, self.precision)
        seen, rate = self.training.iterations * self.training.batch_size, measured(work).images_per_second
        return [*lines, planned(seen, self.training.batch_size, 1, seen, rate * dist.world_size())]

    def run(self, checkpoint: "Checkpoint", data: SegmentedPair, folders: Folders, seed: int) -> dict[str, float]:
        """The seed draws the first weights, the order, the crops and dropout; resumes an interrupted training."""
        from cgh_bench.frozen.dense_head import Objective, train_head

        examples = self.examples(checkpoint, data.train, folders)
        objective = Objective(len(data.train.classes), self._loss())
        identity = fingerprint([self, checkpoint.id, data.train.fingerprint, seed])
        state = folders.run / "state.pt"
        head, history = train_head(examples, objective, self.training, seed, state, identity)
        folders.write("losses.json", json.dumps(history))
        predict = self._by_windows if self.test == "windows" else self._whole
        metrics = judge(data.val, predict(checkpoint, head, data.val, folders), folders)
        for path in folders.run.glob("truth-*.npy"):
            path.unlink(missing_ok=True)
        return metrics

    def examples(self, checkpoint: "Checkpoint", train: SegmentedImages, folders: Folders) -> "Examples":
        """What the head learns from."""
        from cgh_bench.data.map_views import scaled_crop
        from cgh_bench.frozen.dense_head import Cached, Computed, truth_on_disk
        from cgh_bench.frozen.patches import LiveMaps

        if self.view == "windows":
            windows = self.windows(train)
            return Cached(self.patches(checkpoint, windows, folders), truth_on_disk(windows, folders.run))
        live = LiveMaps(checkpoint, self.feature, self.precision)
        view = partial(scaled_crop, short_side=self.short_side, size=self.size)
        return Computed(live, train, view, (self.size,) * 2)

    def _loss(self) -> "Callable[[Tensor, Tensor, Grid, int], Tensor]":
        from cgh_bench.frozen.map_losses import patch_cross_entropy, pixel_cross_entropy

        chosen = patch_cross_entropy if self.loss == "patches" else pixel_cross_entropy
        return lambda outputs, truth, grid, _: chosen(outputs, truth, grid)

    def _by_windows(
        self, checkpoint: "Checkpoint", head: "DenseHead", val: SegmentedImages, folders: Folders
    ) -> Predict:
        """Prediction by the mean of the probabilities that each window gives a pixel."""
        import torch

        from cgh_bench.data.windows import resized_to
        from cgh_bench.frozen.map_losses import resize

        windows, side = self.windows(val), (self.size, self.size)
        patches = self.patches(checkpoint, windows, folders)
        head = head.cpu()
        shown = [windows.of_image(index)[0] for index in range(min(SHOWN, len(val)))]
        some = np.stack([patches.of_image(number) for number in shown])
        draw_patches([windows.image(number) for number in shown], some, patches.grid, folders)

        def predict(index: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
            shape = resized_to((size[0], size[1]), self.short_side)
            total = torch.zeros(head.linear.out_features, *shape)
            for number in windows.of_image(index):
                _, top, left = windows.places[number]
                scores = head.maps(torch.tensor(patches.of_image(number))[None], patches.grid)
                part = (slice(None), slice(top, top + self.size), slice(left, left + self.size))
                total[part] += resize(scores, side, self.upsampling)[0].softmax(dim=0)
            total /= total.sum(dim=0)
            return predicted_classes(total, size, self.upsampling)

        return predict

    def _whole(self, checkpoint: "Checkpoint", head: "DenseHead", val: SegmentedImages, folders: Folders) -> Predict:
        """Prediction by the scores of the whole image at `short_side`."""
        from cgh_bench.data.windows import resized
        from cgh_bench.frozen.map_losses import resize
        from cgh_bench.frozen.patches import LiveMaps

        live = LiveMaps(checkpoint, self.feature, self.precision)

        def predict(index: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
            features, grid, (rows, columns) = live.padded(resized(*val.both(index), self.short_side)[0])
            padded = grid[0] * live.stride, grid[1] * live.stride
            scores = resize(head.maps(features, grid), padded, self.upsampling)[0, :, rows, columns]
            return predicted_classes(scores.cpu(), size, self.upsampling)

        return predict


DINOV3 = LinearSegmentation(view="crops", loss="pixels")
BNHEAD = replace(DINOV3, size=518, test="whole", training=RADIO_TRAINING)
DATA = {"voc": "voc2012_aug", "ade20k": "ade20k", "cityscapes": "cityscapes"}

TASKS = {
    "dense_linear": LinearSegmentation(training=SHORT_TRAINING),
    "animals_dense_linear": LinearSegmentation(
        "animal_scenes", size=256, short_side=256, stride=256, training=SHORT_TRAINING
    ),
    **{f"{name}_dense_linear": LinearSegmentation(data) for name, data in DATA.items()},
    **{f"{name}_dense_linear_dinov3": replace(DINOV3, data=data) for name, data in DATA.items()},
    **{f"{name}_dense_linear_bnhead": replace(BNHEAD, data=data) for name, data in DATA.items()},
}
