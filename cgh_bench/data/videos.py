"""Videos with the object that every pixel belongs to; DAVIS 2017 among them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import read_values
from cgh_bench.data.image_set import Images, RelatedImages
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.pairs import Files

Owner = NDArray[np.uint8]
"""(H, W): 0 for background, k for object k."""
VOID = 255
"""Counts as background."""
FOLDER, VIDEOS = "DAVIS", 30
"""The number of the val set, as published."""
GET = "unpack DAVIS-2017-trainval-480p.zip (https://davischallenge.org/davis2017/code.html) in $CGH_DATA"
LEAST = 3
"""Frames of a video: neither the first nor the last is scored."""


@dataclass(frozen=True, eq=False)
class Video:
    """T frames of one size."""

    name: str
    frames: Images
    owner: Callable[[int], Owner]
    """The true map of frame i."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.owner(0).shape
        return height, width

    def owners(self) -> NDArray[np.uint8]:
        """The true maps (T, H, W).

        Raises:
            UserError: a map is of another size than the first, or the first shows no object.
        """
        maps = [self.owner(index) for index in range(len(self.frames))]
        odd = [index for index, each in enumerate(maps) if each.shape != maps[0].shape]
        if odd:
            raise UserError(f"{self.frames.called(odd[0])} has a map whose size differs from the first frame's")
        if not maps[0].any():
            raise UserError(f"{self.frames.called(0)}, the first frame of {self.name}, has no object to track")
        return np.stack(maps)


@dataclass(frozen=True, eq=False)
class Videos:
    """What is evaluated on."""

    name: str
    videos: tuple[Video, ...]
    fingerprint: str
    """Sixteen hex digits of the content."""
    subset: str = ""
    """How much of the published data is there, if fewer videos are meant; else empty."""


def davis(root: Path, cache: Path | None = None) -> Videos:
    """The val videos of DAVIS 2017 (https://arxiv.org/abs/1704.00675) at 480p below `root`.

    Raises:
        UserError: absent or incomplete, or a frame without its map.
    """
    folder = root / FOLDER
    try:
        names = (folder / "ImageSets/2017/val.txt").read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{folder / 'ImageSets/2017/val.txt'} cannot be read; to get it, {GET}") from None
    if not names or (len(names) != VIDEOS and not (folder / SUBSET).exists()):
        raise UserError(
            f"{folder / 'ImageSets/2017/val.txt'} names {len(names)} videos, {VIDEOS} were published (to use fewer, "
            f"create an empty file {folder / SUBSET}); to get it, {GET}"
        )
    found = [_video(folder, name, cache) for name in names]
    subset = "" if len(found) == VIDEOS else f"{len(found)} of {VIDEOS} videos"
    content = fingerprint([[video.name, video.frames.fingerprint] for video in found])
    return Videos("davis2017", tuple(found), content, subset)


def _video(folder: Path, name: str, cache: Path | None) -> Video:
    stems = [
        sorted(path.stem for path in (folder / part / "480p" / name).glob(f"*.{suffix}")) for part, suffix in PARTS
    ]
    if stems[0] != stems[1] or len(stems[0]) < LEAST:
        odd = sorted(set(stems[0]) ^ set(stems[1]))
        lack = f"frame {odd[0]} has no image or no map" if odd else f"it has {len(stems[0])} frames"
        raise UserError(f"{name} in {folder}: {lack}; needed are {LEAST} or more frames with image and mask; {GET}")
    paths, maps = ([f"{part}/480p/{name}/{stem}.{suffix}" for stem in stems[0]] for part, suffix in PARTS)
    content = fingerprint([each.hex() for each in contents(folder, [*paths, *maps], cache)])
    return Video(name, Files(f"davis2017/{name}", folder, tuple(paths), content), lambda i: _owner(folder / maps[i]))


PARTS = ("JPEGImages", "jpg"), ("Annotations", "png")


def _owner(path: Path) -> Owner:
    values = read_values(path)
    if values.ndim != 2 or values.dtype != np.uint8:
        raise UserError(f"{path} is a colour image; expected a map of object numbers")
    return np.where(values == VOID, 0, values).astype(np.uint8)


CATALOG = {
    "davis2017": RelatedImages(
        description="DAVIS 2017, val at 480p: 30 videos with a mask for each object in every frame",
        source="https://arxiv.org/abs/1704.00675",
        load=davis,
        kind="video",
    )
}
