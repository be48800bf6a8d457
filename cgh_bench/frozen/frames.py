"""Labels carried through a video by the similarity of features, and how well they fit the truth.

Sources: facebookresearch/dino@7c446df `eval_video_segmentation.py` (propagation) and
davisvideochallenge/davis2017-evaluation@ac7c43f `davis2017/metrics.py` (region similarity J, contour accuracy F).
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.config import fingerprint
from cgh_bench.core.device import Precision
from cgh_bench.data.transform import AS_IS
from cgh_bench.data.videos import Owner, Video
from cgh_bench.frozen.extraction import Work
from cgh_bench.frozen.features import filled, plan_bank
from cgh_bench.frozen.patches import Grid, Patches, feature_map, resize_map
from cgh_bench.networks.base import Backbone

CONTOUR = 0.008
"""How far a contour may be off, as a share of the image's diagonal."""


@dataclass(frozen=True)
class Frames:
    """All frames of some videos, resized to one size; bilinear, without antialiasing."""

    videos: Sequence[Video]
    size: tuple[int, int]
    """Height and width."""
    in_memory: ClassVar = False

    @property
    def name(self) -> str:
        """The first video and how many there are."""
        return f"{self.videos[0].name} ({len(self.videos)} videos, {self.size[1]}x{self.size[0]})"

    @property
    def fingerprint(self) -> str:
        """The hash of frames and size."""
        return fingerprint([[video.frames.fingerprint for video in self.videos], self.size])

    def __len__(self) -> int:
        return sum(len(video.frames) for video in self.videos)

    def called(self, index: int) -> str:
        """The name of the frame in its video."""
        video, frame = self._find(index)
        return video.frames.called(frame)

    def image(self, index: int) -> Tensor:
        """Frame `index` of all, (3, H, W) uint8."""
        video, frame = self._find(index)
        return F.resize(video.frames.image(frame), list(self.size), antialias=False)

    def _find(self, index: int) -> tuple[Video, int]:
        for video in self.videos:
            if index < len(video.frames):
                return video, index
            index -= len(video.frames)
        raise IndexError(index)


@dataclass(frozen=True)
class MapWork(Work):
    """The last map of images of one size, position by position, in one row of the bank."""

    size: tuple[int, int] = (1, 1)

    def shape(self) -> tuple[Grid, int]:
        """Rows and columns of the map, and its width.

        Raises:
            UserError: the network does not take images of that size.
        """
        self.checkpoint.architecture.require_size(*self.size)
        with torch.inference_mode():
            found = self._map(self.checkpoint.backbone(copy=False), torch.zeros(1, 3, *self.size))
        return (found.shape[2], found.shape[3]), found.shape[1]

    def widths(self, backbone: Backbone) -> list[int]:
        """See `Work`."""
        (rows, columns), width = self.shape()
        return [rows * columns * width]

    def compute(self, backbone: Any, inputs: Tensor) -> list[Tensor]:
        """See `Work`."""
        return [self._map(backbone, inputs).flatten(2).transpose(1, 2).flatten(1)]

    def _map(self, backbone: Backbone, inputs: Tensor) -> Tensor:
        return feature_map(backbone, inputs, self.targets[0])


@dataclass(frozen=True)
class FrameFeatures:
    """How frames' features are made, and where they are kept."""

    checkpoint: Checkpoint
    feature: str
    cache: Path
    precision: Precision = "fp32"

    def work(self, frames: Frames) -> MapWork:
        """The extraction from these frames."""
        targets = (self.checkpoint.architecture.targets(self.feature),)
        return MapWork(self.checkpoint, frames, AS_IS, targets, self.precision, frames.size)

    def extract(self, frames: Frames) -> Patches:
        """The patches of every frame, from the cache where they were computed before; see `features.extract`."""
        work = self.work(frames)
        grid, width = work.shape()
        return Patches(filled(work, self._folder(frames), patches=grid).reshape(-1, width), grid)

    def plan(self, frames: Frames) -> str:
        """What `extract` would do, and how long that would take, in a line."""
        work = self.work(frames)
        (rows, columns), width = work.shape()
        what = f"features of {frames.name}: {len(frames):,} frames x {rows}x{columns} x {width}"
        return plan_bank(work, self._folder(frames), what, rows * columns * width, "frames")

    def _folder(self, frames: Frames) -> Path:
        targets = self.checkpoint.architecture.targets(self.feature)
        return self.cache / fingerprint(["frames", self.checkpoint.id, frames.fingerprint, targets, self.precision])


@dataclass(frozen=True)
class Propagation:
    """How labels are carried from frame to frame."""

    context: int
    """Frames before the present one that labels come from, beside the first."""
    radius: int
    """Positions of the map, each way, within which they come from; 0: any."""
    k: int
    """Similarities that count for each position, of all frames together; more where the last of them are equal."""
    temperature: float

    def carry(self, features: NDArray[np.float32], grid: Grid, first: Tensor) -> Iterator[Tensor]:
        """The share of each object in every position of the frames 1, 2, …: (C, rows, columns).

        Args:
            features: (T, rows * columns, D).
            grid: rows and columns.
            first: the labels of frame 0, (C, rows, columns), one-hot, on the device that computes.
        """

        def unit_rows(frame: NDArray[np.float32]) -> Tensor:
            return torch.nn.functional.normalize(torch.tensor(frame, device=first.device), dim=1)

        start = unit_rows(features[0]), first.flatten(1)
        before: deque[tuple[Tensor, Tensor]] = deque(maxlen=self.context)
        near = self._near(grid).to(first.device)
        for each in features[1:]:
            unit = unit_rows(each)
            sources = [start, *before]
            affinity = torch.cat([near * (source @ unit.T / self.temperature).exp() for source, _ in sources])
            least = affinity.topk(min(self.k, len(affinity)), dim=0).values[-1]
            affinity[affinity < least] = 0
            labels = torch.cat([label for _, label in sources], dim=1) @ (affinity / affinity.sum(dim=0))
            before.append((unit, labels))
            yield labels.reshape(-1, *grid)

    def _near(self, grid: Grid) -> Tensor:
        """1 where two positions (N, N) are at most `radius` rows and columns apart, else 0."""
        rows, columns = (index.flatten() for index in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
        apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
        return (apart <= self.radius).float() if self.radius else torch.ones_like(apart, dtype=torch.float32)


def decided(shares: Tensor, size: tuple[int, int], final: tuple[int, int]) -> Owner:
    """The object of each pixel: `shares` (C, h, w) enlarged to `size`, each stretched to 0 … 1, resized to `final`."""
    enlarged = torch.nn.functional.interpolate(shares[None], size, mode="bilinear", align_corners=False)[0]
    least, most = enlarged.flatten(1).amin(dim=1), enlarged.flatten(1).amax(dim=1)
    spread = torch.where(most > least, most - least, 1)[:, None, None]
    stretched = torch.where((most > 0)[:, None, None], (enlarged - least[:, None, None]) / spread, enlarged)
    return resize_map(stretched.argmax(dim=0).to(torch.uint8).cpu().numpy(), final)


def region(true: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """J of two masks (H, W): their intersection over their union; 1 if both are empty."""
    union = np.count_nonzero(true | found)
    return np.count_nonzero(true & found) / union if union else 1.0


def contour(true: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """F of two masks (H, W): the harmonic mean of the shares of each one's contour that is near the other's."""
    reach = math.ceil(CONTOUR * math.hypot(*true.shape))
    edges = _edge(true), _edge(found)
    lengths = [np.count_nonzero(edge) for edge in edges]
    if not all(lengths):
        return float(lengths[0] == lengths[1])
    recall = np.count_nonzero(edges[0] & _within(edges[1], reach)) / lengths[0]
    precision = np.count_nonzero(edges[1] & _within(edges[0], reach)) / lengths[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that differ from that to the right, below, or both; at the last row and column only along it."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ across)


def _within(edge: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    from scipy import ndimage

    return ndimage.distance_transform_edt(~edge) <= reach
