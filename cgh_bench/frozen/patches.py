"""Features of patches: what the backbone's maps say of each part of an image, extracted once and kept on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import to_dtype

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.config import fingerprint
from cgh_bench.core.device import Precision, arithmetic, pick_device
from cgh_bench.core.errors import UserError
from cgh_bench.data.image_set import Images
from cgh_bench.data.segmented import VOID
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.extraction import Work, require_frozen
from cgh_bench.frozen.features import filled, plan_bank
from cgh_bench.networks.base import Backbone, Stage, hypercolumn

Grid = tuple[int, int]
"""Rows and columns of patches."""


@dataclass(frozen=True)
class Patches:
    """The features of the patches of N images, all of one size."""

    features: NDArray[np.float32]
    """(N * rows * columns, D), memory-mapped read-only: image by image, row by row."""
    grid: Grid

    @property
    def per_image(self) -> int:
        """How many patches an image has."""
        return self.grid[0] * self.grid[1]

    def of_image(self, index: int) -> NDArray[np.float32]:
        """(rows * columns, D)"""
        return self.features[index * self.per_image : (index + 1) * self.per_image]


def feature_map(backbone: Backbone, images: Tensor, targets: Sequence[str]) -> Tensor:
    """The map (B, C, h, w) behind a feature of `images` (B, 3, H, W), preprocessed.

    A stage's map, or the hypercolumn of several; what is pooled from the whole network (`layer4` of any family, `cls`,
    `patch_mean`, `head`) stands for the last map: of a transformer its patch tokens after the final norm.
    """
    maps = backbone.pyramid(images)
    stages = tuple(target for target in targets if target in maps) or tuple(maps)[-1:]
    if not stages:
        raise UserError(f"{backbone.architecture.name} has no feature maps; dense tasks need a backbone with maps")
    return hypercolumn(maps, stages)


def grid_of(checkpoint: Checkpoint, targets: Sequence[str], size: int) -> tuple[Grid, int]:
    """The grid of the feature's map of images of `size` pixels a side, and its width.

    Raises:
        UserError: the network does not take that size, or `size` is not a multiple of the patches' side.
    """
    with torch.inference_mode():
        found = feature_map(checkpoint.backbone(copy=False), torch.zeros(1, 3, size, size), targets)
    _, width, rows, columns = found.shape
    stride = _stages(checkpoint, targets)[-1].stride
    if size % stride or rows * stride != size:
        raise UserError(_not_a_multiple(checkpoint, size, size, stride))
    return (rows, columns), width


class LiveMaps:
    """A frozen backbone that computes the maps of a feature for any images, where they cannot be cached.

    Attributes:
        width: D.
        stride: the side of a patch in pixels.
    """

    def __init__(self, checkpoint: Checkpoint, feature: str, precision: Precision) -> None:
        self.checkpoint, self.precision, self.device = checkpoint, precision, pick_device()
        self.targets = checkpoint.architecture.targets(feature)
        self.backbone = checkpoint.backbone().to(self.device)
        self.width, self.stride = map_width(checkpoint, feature), _stages(checkpoint, self.targets)[-1].stride

    def grid(self, height: int, width: int) -> Grid:
        """The patches of an image of this size.

        Raises:
            UserError: a side is not a multiple of the patches'.
        """
        if height % self.stride or width % self.stride:
            raise UserError(_not_a_multiple(self.checkpoint, f"{height}x{width}", min(height, width), self.stride))
        return height // self.stride, width // self.stride

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The features of patches (B, P, D) of `images` (B, 3, H, W) uint8 on the device."""
        return self._features(self._prepared(images))

    @torch.no_grad()
    def padded(self, image: Tensor) -> tuple[Tensor, Grid, tuple[slice, slice]]:
        """The features of patches (1, P, D) of an image (3, H, W) uint8 of any size, their grid, and where it lies.

        After preprocessing it is padded with zeros on all sides to the next multiple of a patch, as DINOv2 does.
        """
        height, width = image.shape[1:]
        down, across = -height % self.stride, -width % self.stride
        top, left = down // 2, across // 2
        pixels = self._prepared(image[None].to(self.device))
        pixels = torch.nn.functional.pad(pixels, (left, across - left, top, down - top))
        grid = self.grid(height + down, width + across)
        return self._features(pixels), grid, (slice(top, top + height), slice(left, left + width))

    def require_frozen(self) -> None:
        """Prove that the backbone has not changed.

        Raises:
            CheckFailed: it has.
        """
        require_frozen(self.checkpoint, self.backbone)

    def _prepared(self, images: Tensor) -> Tensor:
        return self.checkpoint.preprocessing(to_dtype(images, torch.float32, scale=True))

    def _features(self, pixels: Tensor) -> Tensor:
        with arithmetic(self.precision, self.device):
            return feature_map(self.backbone, pixels, self.targets).float().flatten(2).transpose(1, 2)


def map_width(checkpoint: Checkpoint, feature: str) -> int:
    """The width D of the feature's map."""
    return sum(stage.channels for stage in _stages(checkpoint, checkpoint.architecture.targets(feature)))


def _stages(checkpoint: Checkpoint, targets: Sequence[str]) -> list[Stage]:
    """The stages behind the map of a feature, on the grid of the last of them; see `feature_map`."""
    stages = checkpoint.architecture.skeleton.stages
    if not stages:
        raise UserError(f"{checkpoint.architecture.name} gives vectors only; this needs a backbone with maps")
    return [stages[target] for target in targets if target in stages] or list(stages.values())[-1:]


def _not_a_multiple(checkpoint: Checkpoint, size: object, side: int, stride: int) -> str:
    return (
        f"size={size} is not a multiple of {stride}, the side of a patch of {checkpoint.architecture.name}; "
        f"take --set size={max(stride, round(side / stride) * stride)}"
    )


@dataclass(frozen=True)
class PatchWork(Work):
    """The patches of an image side by side in one row of the bank."""

    def widths(self, backbone: Backbone) -> list[int]:
        """See `Work`: the number of patches times their width."""
        assert self.transform.resize
        found = [grid_of(self.checkpoint, target, self.transform.resize) for target in self.targets]
        return [rows * columns * width for (rows, columns), width in found]

    def compute(self, backbone: Any, inputs: Tensor) -> list[Tensor]:
        """See `Work`."""
        maps = [feature_map(backbone, inputs, target) for target in self.targets]
        return [found.flatten(2).transpose(1, 2).flatten(1) for found in maps]


def squashed(size: int) -> EvalTransform:
    """Both sides resized to `size`, bilinear with antialiasing."""
    return EvalTransform(size, None, "bilinear", squash=True)


def extract_patches(
    checkpoint: Checkpoint, images: Images, size: int, feature: str, cache: Path, precision: Precision = "fp32"
) -> Patches:
    """The patches' features of all `images`, squashed to `size` pixels a side.

    They are kept in `cache` and found there again; interrupted, the extraction resumes; of several processes each
    computes a part.

    Raises:
        UserError: an unknown feature, a size that the network does not take, or images that cannot be used.
    """
    targets = checkpoint.architecture.targets(feature)
    grid, width = grid_of(checkpoint, targets, size)
    folder = cache / _key(checkpoint, images, size, targets, precision)
    work = PatchWork(checkpoint, images, squashed(size), (targets,), precision)
    whole = filled(work, folder, patches=grid)
    shape = len(images) * grid[0] * grid[1], width
    # not `whole.reshape`: `frozen.rows` reads only what is itself mapped
    return Patches(np.memmap(folder / "features.npy", np.float32, "r", whole.offset, shape), grid)


def plan_patches(
    checkpoint: Checkpoint, images: Images, size: int, feature: str, cache: Path, precision: Precision = "fp32"
) -> str:
    """What `extract_patches` would do, and how long that would take, in a line."""
    targets = checkpoint.architecture.targets(feature)
    grid, width = grid_of(checkpoint, targets, size)
    count = len(images) * grid[0] * grid[1]
    what = f"patches of {images.name}: {len(images):,} images x {grid[0]}x{grid[1]} = {count:,} x {width}"
    folder = cache / _key(checkpoint, images, size, targets, precision)
    work = PatchWork(checkpoint, images, squashed(size), (targets,), precision)
    return plan_bank(work, folder, what, grid[0] * grid[1] * width)


def _key(checkpoint: Checkpoint, images: Images, size: int, targets: tuple[str, ...], precision: Precision) -> str:
    other = [] if precision == "fp32" else [precision]
    return fingerprint(["patches", checkpoint.id, images.fingerprint, size, targets, *other])


def resize_map(truth: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A map (H, W) of classes or objects at another size: each pixel has the value of the nearest."""
    tensor = torch.from_numpy(truth)[None, None]
    return torch.nn.functional.interpolate(tensor, size, mode="nearest-exact")[0, 0].numpy()


def patch_pixels(truth: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    """The pixels of each patch of a map (H, W) whose sides are multiples of the grid's: (rows * columns, pixels)."""
    (rows, columns), (height, width) = grid, truth.shape
    tiles = truth.reshape(rows, height // rows, columns, width // columns).transpose(0, 2, 1, 3)
    return tiles.reshape(rows * columns, -1)


def class_counts(pixels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """How many of each patch's `pixels` (P, pixels) are of each class, (P, C); those that are `VOID` are of none."""
    patch = np.broadcast_to(np.arange(len(pixels))[:, None], pixels.shape)
    known = pixels != VOID
    pairs = patch[known] * classes + pixels[known]
    return np.bincount(pairs, minlength=len(pixels) * classes).reshape(len(pixels), classes)
