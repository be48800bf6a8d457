"""Pairs of images with points that correspond; SPair-71k among them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import read_image
from cgh_bench.data.image_set import Images, RelatedImages
from cgh_bench.data.layout import SUBSET

if TYPE_CHECKING:
    from torch import Tensor

Points = NDArray[np.float64]
"""(n, 2): x and y in pixels; the centre of the first pixel is (0, 0)."""
SPAIR_FOLDER = "SPair-71k"
SPAIR_PAIRS = 12_234
"""The number in the test split, as published."""
SPAIR_GET = "unpack http://cvlab.postech.ac.kr/research/SPair-71k/data/SPair-71k.tar.gz in $CGH_DATA"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two images of one kind of object, the points of one and the same points of the other."""

    source: int
    target: int
    """Numbers of the images."""
    label: int
    source_points: Points
    target_points: Points
    sizes: tuple[tuple[int, int], tuple[int, int]]
    """Width and height of the source and of the target."""
    extent: float
    """The longer side of the object's box in the target, in pixels."""


@dataclass(frozen=True, eq=False)
class PairedImages:
    """Pairs, and the images that they are made of."""

    name: str
    classes: tuple[str, ...]
    images: Images
    pairs: tuple[Pair, ...]
    fingerprint: str
    """Sixteen hex digits of the content."""
    subset: str = ""
    """How much of the published data is there, if fewer pairs are meant; else empty."""


@dataclass(frozen=True, eq=False)
class Files:
    """Images in a folder, each in its own size."""

    name: str
    folder: Path
    paths: tuple[str, ...]
    fingerprint: str
    in_memory: ClassVar = False

    def __len__(self) -> int:
        return len(self.paths)

    def called(self, index: int) -> str:
        """Its path below the folder."""
        return self.paths[index]

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB."""
        return read_image(self.folder / self.paths[index])


def spair(root: Path, cache: Path | None = None) -> PairedImages:
    """The test pairs of SPair-71k (https://arxiv.org/abs/1908.10543) below `root`.

    Raises:
        UserError: absent or incomplete, or a pair without its points or images.
    """
    folder = root / SPAIR_FOLDER
    files = sorted((folder / "PairAnnotation/test").glob("*.json"))
    if not files or (len(files) != SPAIR_PAIRS and not (folder / SUBSET).exists()):
        raise UserError(
            f"{folder / 'PairAnnotation/test'} has {len(files)} pairs, {SPAIR_PAIRS} were published (to use fewer, "
            f"create an empty file {folder / SUBSET}); to get it, {SPAIR_GET}"
        )
    read = [_annotation(path) for path in files]
    paths = sorted({each[side] for each in read for side in ("source", "target")})
    absent = [path for path in paths if not (folder / path).is_file()]
    if absent:
        raise UserError(f"{len(absent)} images of {folder} are missing (first: {absent[0]}); to get it, {SPAIR_GET}")
    number = {path: index for index, path in enumerate(paths)}
    classes = tuple(sorted({each["class"] for each in read}))
    pairs = tuple(
        Pair(number[each["source"]], number[each["target"]], classes.index(each["class"]), *each["rest"])
        for each in read
    )
    found = contents(folder, [*paths, *(str(path.relative_to(folder)) for path in files)], cache)
    content = fingerprint([each.hex() for each in found])
    subset = "" if len(pairs) == SPAIR_PAIRS else f"{len(pairs):,} of {SPAIR_PAIRS:,} pairs"
    images = Files("spair71k/test", folder, tuple(paths), content)
    return PairedImages("spair71k", classes, images, pairs, content, subset)


def _annotation(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        kind = str(given["category"])
        points = [np.array(given[key], np.float64).reshape(-1, 2) for key in ("src_kps", "trg_kps")]
        sizes = tuple((int(given[key][0]), int(given[key][1])) for key in ("src_imsize", "trg_imsize"))
        left, top, right, bottom = map(float, given["trg_bndbox"])
        names = [str(given[key]) for key in ("src_imname", "trg_imname")]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UserError(f"{path} is not an annotation of SPair-71k ({error!r:.80}); unpack it again") from None
    if not len(points[0]) or len(points[0]) != len(points[1]):
        raise UserError(f"{path} has {len(points[0])} and {len(points[1])} points; expected equal numbers above 0")
    extent = max(right - left, bottom - top)
    if extent <= 0:
        raise UserError(f"{path} has an empty box ({given['trg_bndbox']}); unpack it again")
    source, target = (f"JPEGImages/{kind}/{name}" for name in names)
    return {"class": kind, "source": source, "target": target, "rest": (*points, sizes, extent)}


CATALOG = {
    "spair71k": RelatedImages(
        description="SPair-71k, test: 12,234 pairs of 18 kinds of object with corresponding points",
        source="https://arxiv.org/abs/1908.10543",
        load=spair,
        kind="correspondence",
    )
}
