"""Video segmentation: the objects of the first frame are found again in the others by the similarity of features.

Source: facebookresearch/dino@7c446df `eval_video_segmentation.py`, scored as davisvideochallenge/davis2017-evaluation
does (semi-supervised): J is the intersection over union of a mask, F that of contours, each averaged over the frames of
an object without the first and the last, then over objects of all videos.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.core.files import replacing
from cgh_bench.data import load_related
from cgh_bench.data.videos import Video, Videos
from cgh_bench.tasks.base import Folders, FrozenTask, Metric

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint
    from cgh_bench.frozen.frames import FrameFeatures, Frames
    from cgh_bench.outcomes.scores import Scores

MASKS = "masks"
"""The folder of a run with what was predicted for each frame."""
DRAWN, IN_STRIP = 4, 6
"""Videos that are drawn, and frames of each."""
Masks = NDArray[np.uint8]
"""(T, H, W): the object of every pixel."""


@dataclass(frozen=True)
class Tracking(FrozenTask[Videos]):
    """Propagate the masks of a video's first frame to the later frames; J, F and their mean.

    `masks/VIDEO/FRAME.png` are in DAVIS format; `pictures/tracking.png` shows some frames.
    """

    METRICS: ClassVar = (Metric("J&F"), Metric("J"), Metric("F"))

    data: str
    short: int = 480
    """Pixels that the short side is resized to."""
    multiple: int = 64
    """The long side is rounded down to a multiple of this number of pixels."""
    feature: str = "layer4"
    """`layer4` of any family is the last map (of a transformer its patch tokens after the final norm)."""
    context: int = 7
    radius: int = 12
    """The radius in positions of the map, whatever its stride."""
    k: int = 5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if min(self.short, self.multiple, self.k) < 1 or min(self.context, self.radius) < 0 or self.temperature <= 0:
            raise UserError(
                f"short {self.short}, multiple {self.multiple} and k {self.k} must be at least 1, context "
                f"{self.context} and radius {self.radius} at least 0, temperature {self.temperature} above 0"
            )

    def load_data(self, cache: Path) -> Videos:
        """The videos."""
        return load_related(self.data, "video", cache)

    def plan(self, checkpoint: "Checkpoint", data: Videos, folders: Folders) -> list[str]:
        """Time and disk of the features, memory of the propagation."""
        features, lines, most = self._features(checkpoint, folders), [], 0
        for frames in self._batches(data):
            rows, columns = features.work(frames).shape()[0]
            most = max(most, (self.context + 3) * (rows * columns) ** 2 * 4)
            lines.append(features.plan(frames))
        return [*lines, f"propagation: at most {2 * most / 1e6:,.0f} MB of memory"]

    def run(self, checkpoint: "Checkpoint", data: Videos, folders: Folders, seed: int) -> dict[str, float]:
        """Deterministic: no seed enters. Of several processes each follows the objects of some videos."""
        from cgh_bench.core import dist

        found: list[tuple[str, NDArray[np.float64]]] = []
        strips: list[tuple[Video, Masks]] = []
        features = self._features(checkpoint, folders)
        for frames in self._batches(data):
            patches, starts = features.extract(frames), np.cumsum([0, *(len(v.frames) for v in frames.videos)])
            each = patches.features.reshape(len(frames), patches.per_image, -1)
            mine = range(len(frames.videos))[dist.share(len(frames.videos))]
            parts = []
            for number in mine:
                video = frames.videos[number]
                true = video.owners()
                predicted = self._follow(each[starts[number] : starts[number + 1]], patches.grid, frames.size, true)
                _write(folders.run / MASKS / video.name, video, predicted)
                parts.append((video.name, scored(true, predicted), predicted))
            for name, scores, predicted in chain.from_iterable(dist.gather_shares(parts)):
                found.append((name, scores))
                if len(strips) < DRAWN:
                    strips.append((next(v for v in frames.videos if v.name == name), predicted))
        _draw(strips, folders)
        outcomes = _outcomes(data, found)
        folders.keep(outcomes)
        return outcomes.metrics()

    def _features(self, checkpoint: "Checkpoint", folders: Folders) -> "FrameFeatures":
        from cgh_bench.frozen.frames import FrameFeatures

        return FrameFeatures(checkpoint, self.feature, folders.features, self.precision)

    def _batches(self, data: Videos) -> "Iterator[Frames]":
        """The videos by the size that their frames are resized to."""
        from cgh_bench.frozen.frames import Frames

        by_size: dict[tuple[int, int], list[Video]] = {}
        for video in data.videos:
            by_size.setdefault(self.size_of(video.size), []).append(video)
        yield from (Frames(videos, size) for size, videos in by_size.items())

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """The height and width that a video of this height and width is resized to."""
        short, long = min(size), max(size)
        longer = max(self.short, int(self.short * long / short) // self.multiple * self.multiple)
        return (longer, self.short) if size[0] > size[1] else (self.short, longer)

    def _follow(
        self, features: NDArray[np.float32], grid: tuple[int, int], size: tuple[int, int], true: Masks
    ) -> Masks:
        """What each pixel is predicted to be; of `true` only the first map is looked at."""
        import torch

        from cgh_bench.core.device import pick_device
        from cgh_bench.frozen.frames import Propagation, decided
        from cgh_bench.frozen.patches import resize_map

        first = torch.from_numpy(resize_map(true[0], grid).astype(np.int64))
        labels = torch.nn.functional.one_hot(first, int(true[0].max()) + 1).permute(2, 0, 1).float().to(pick_device())
        carried = Propagation(self.context, self.radius, self.k, self.temperature).carry(features, grid, labels)
        height, width = true[0].shape
        return np.stack([true[0], *(decided(shares, size, (height, width)) for shares in carried)])


def scored(true: Masks, predicted: Masks) -> NDArray[np.float64]:
    """J and F of each object of the first frame, (objects, 2), the means over all frames but the first and the last."""
    from cgh_bench.frozen.frames import contour, region

    frames = range(1, len(true) - 1)
    return np.array(
        [
            [
                np.mean([measure(true[frame] == number, predicted[frame] == number) for frame in frames])
                for measure in (region, contour)
            ]
            for number in range(1, int(true[0].max()) + 1)
        ]
    )


def _outcomes(data: Videos, found: list[tuple[str, NDArray[np.float64]]]) -> "Scores":
    """The objects of all videos with their scores, in per cent."""
    from cgh_bench.outcomes.base import named_images
    from cgh_bench.outcomes.scores import scores_of

    names = [f"{name} object {number}" for name, scores in found for number in range(1, len(scores) + 1)]
    region, contour = 100 * np.concatenate([scores for _, scores in found]).T
    values = {"J&F": (region + contour) / 2, "J": region, "F": contour}
    return scores_of(named_images(data.name, names, data.fingerprint), "object", values)


def _write(folder: Path, video: Video, predicted: Masks) -> None:
    for index, each in enumerate(predicted):
        name = Path(video.frames.called(index)).stem if "/" in video.frames.called(index) else f"{index:05d}"
        with replacing(folder / f"{name}.png", flush=False) as path:
            Image.fromarray(each).save(path)


def _draw(strips: list[tuple[Video, Masks]], folders: Folders) -> None:
    from cgh_bench.frozen import drawing

    rows = []
    for video, predicted in strips:
        chosen = np.linspace(0, len(predicted) - 1, IN_STRIP).round().astype(int).tolist()
        shown = [(drawing.picture_of(video.frames.image(i)), predicted[i]) for i in chosen]
        rows.append([drawing.objects(image, owner) for image, owner in shown])
    folders.picture("tracking", drawing.sheet(rows))


TASKS = {
    "animals_tracking": Tracking("animal_videos", short=256),
    "davis_tracking": Tracking("davis2017"),
}
