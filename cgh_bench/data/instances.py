"""Queries and the gallery that has right images of each: revisited Oxford and Paris, Met, AmsterTime, Copydays.

Layouts are those of the benchmarks' own code: filipradenovic/revisitop@be39832, nikosips/met@dea402c,
seyrankhademi/AmsterTime@ec9af09, and for Copydays facebookresearch/dino@7c446df `eval_copy_detection.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data.contents import contents
from cgh_bench.data.folder import SUFFIXES
from cgh_bench.data.image_set import RelatedImages
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.pairs import Files

if TYPE_CHECKING:
    from torch import Tensor

Numbers = NDArray[np.int64]
"""(n,) numbers of images of the gallery."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is right for each of Q queries under one rule."""

    right: tuple[Numbers, ...]
    """For each query; a query with none does not count."""
    junk: tuple[Numbers, ...]
    """For each query: neither right nor wrong, as if they were not in the gallery."""


@dataclass(frozen=True, eq=False)
class Searched:
    """Queries, and the gallery that is searched for them."""

    name: str
    gallery: Files
    queries: Files
    truths: Mapping[str, Truth]
    """By what follows the names of the metrics ("_M" for the medium rule of Oxford and Paris)."""
    fingerprint: str
    """Sixteen hex digits of the content."""
    subset: str = ""
    """How much of the published data is there, if fewer images are meant, or what was added to them."""
    boxes: NDArray[np.float64] | None = None
    """(Q, 4) left, top, right, bottom of what is asked for in each query, in pixels, where the authors give it."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Images cut to a box each."""

    whole: Files
    boxes: NDArray[np.float64]
    """(N, 4) left, top, right, bottom in pixels; rounded, as Pillow's `crop` does."""
    in_memory: ClassVar = False

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def name(self) -> str:
        """The same."""
        return self.whole.name

    @property
    def fingerprint(self) -> str:
        """The hash of the images and their boxes."""
        return fingerprint([self.whole.fingerprint, self.boxes.tolist()])

    def called(self, index: int) -> str:
        """The name of the whole image."""
        return self.whole.called(index)

    def image(self, index: int) -> "Tensor":
        """What is in the box of image `index`, (3, h, w) uint8."""
        image = self.whole.image(index)
        left, top, right, bottom = self.boxes[index].round().astype(int).clip(0)
        if right <= left or bottom <= top or left >= image.shape[2] or top >= image.shape[1]:
            raise UserError(f"{self.called(index)}: the box {self.boxes[index].tolist()} lies outside the image")
        return image[:, top:bottom, left:right]


@dataclass(frozen=True)
class Place:
    """Where a benchmark lies, how many images it has, and how to get it."""

    name: str
    """The name of the benchmark and of its folder below `$CGH_DATA`."""
    published: tuple[int, int]
    """Images of the gallery, and queries."""
    how: str

    def images(
        self, root: Path, listed: tuple[Sequence[str], Sequence[str]], truths: Mapping[str, Truth], cache: Path | None
    ) -> Searched:
        """The benchmark below `root`.

        Args:
            root: see above.
            listed: paths of the gallery and of the queries, below the benchmark's folder.
            truths: as of `Searched`.
            cache: where hashes of files are remembered.

        Raises:
            UserError: images are absent, or there are not as many as published.
        """
        folder, counts = root / self.name, (len(listed[0]), len(listed[1]))
        if counts != self.published and not (folder / SUBSET).exists():
            raise UserError(
                f"{folder} has {counts[0]:,} images and {counts[1]:,} queries, {self.published[0]:,} and "
                f"{self.published[1]:,} were published (to use fewer, create an empty file {folder / SUBSET}); to "
                f"get it, {self.how}"
            )
        absent = [path for path in dict.fromkeys([*listed[0], *listed[1]]) if not (folder / path).is_file()]
        if absent:
            raise UserError(f"{len(absent)} images of {folder} are missing (first: {absent[0]}); to get it, {self.how}")
        hashes = [[found.hex() for found in contents(folder, part, cache)] for part in listed]
        answers = {
            key: [[each.tolist() for each in side] for side in (truth.right, truth.junk)]
            for key, truth in truths.items()
        }
        gallery, queries = (
            Files(f"{self.name}/{what}", folder, tuple(part), fingerprint(found))
            for what, part, found in zip(("gallery", "queries"), listed, hashes, strict=True)
        )
        few = "" if counts == self.published else f"{counts[0]:,} of {self.published[0]:,} images"
        return Searched(self.name, gallery, queries, truths, fingerprint([hashes, answers]), few)


def _revisited(place: Place, root: Path, cache: Path | None = None) -> Searched:
    """Its three rules: easy, medium and hard; the images of the others are junk, or right too."""
    from cgh_bench.core.pickles import load_numpy

    folder = root / place.name
    path = folder / f"gnd_{place.name}.pkl"
    if not path.is_file():
        raise UserError(f"{path} not found; to get it, {place.how}")
    try:
        known = load_numpy(path)
        listed = [[f"jpg/{image}.jpg" for image in known[key]] for key in ("imlist", "qimlist")]
        found = [
            {kind: np.unique(np.asarray(each[kind], np.int64)) for kind in ("easy", "hard", "junk")}
            for each in known["gnd"]
        ]
        boxes = np.array([each["bbx"] for each in known["gnd"]], np.float64).reshape(-1, 4)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not an annotation of {place.name} ({error!r:.80}); to get it, {place.how}"
        ) from None
    if len(found) != len(listed[1]) or any(
        n.size and n.max() >= len(listed[0]) for each in found for n in each.values()
    ):
        raise UserError(f"{path} refers to queries or images that it does not list; to get it, {place.how}")

    def rule(right: Sequence[str], junk: Sequence[str]) -> Truth:
        def some(each: Mapping[str, Numbers], kinds: Sequence[str]) -> Numbers:
            return np.concatenate([each[kind] for kind in kinds])

        return Truth(tuple(some(each, right) for each in found), tuple(some(each, junk) for each in found))

    truths = {
        "_M": rule(("easy", "hard"), ("junk",)),
        "_H": rule(("hard",), ("junk", "easy")),
        "_E": rule(("easy",), ("junk", "hard")),
    }
    images = place.images(root, (listed[0], listed[1]), truths, cache)
    return replace(images, boxes=boxes, fingerprint=fingerprint([images.fingerprint, boxes.tolist()]))


def _met(place: Place, root: Path, cache: Path | None = None) -> Searched:
    """The queries of the test set that show an exhibit; right are the studio photographs of the same exhibit."""
    folder = root / place.name
    database, tests = (_entries(folder / f"ground_truth/{file}.json", place) for file in ("MET_database", "testset"))
    try:
        exhibit = np.array([int(each["id"]) for each in database])
        asked = [(f"images/{each['path']}", int(each["MET_id"])) for each in tests if "MET_id" in each]
        gallery = [f"images/{each['path']}" for each in database]
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'ground_truth'} is not that of Met ({error!r:.80}); {place.how}") from None
    right = tuple(np.flatnonzero(exhibit == number) for _, number in asked)
    truth = Truth(right, _nothing(len(right)))
    return place.images(root, (gallery, [path for path, _ in asked]), {"": truth}, cache)


def _entries(path: Path, place: Place) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error!r:.80}); to get it, {place.how}") from None
    return found if isinstance(found, list) else []


def _amstertime(place: Place, root: Path, cache: Path | None = None) -> Searched:
    """Every image is a query, and right is its counterpart; images of its own time are junk."""
    folder = root / place.name
    sides = [_images(folder, side) for side in ("new", "old")]
    stems = [[Path(path).stem for path in side] for side in sides]
    if stems[0] != stems[1]:
        odd = sorted(set(stems[0]) ^ set(stems[1]))
        raise UserError(
            f"{folder}: {len(odd)} images have no counterpart in new/ or old/, first {odd[:1]}; {place.how}"
        )
    count = len(stems[0])
    numbers, everything = np.arange(count), [*sides[0], *sides[1]]
    right = tuple(np.array([number]) for number in (*(numbers + count), *numbers))
    truth = Truth(right, (numbers,) * count + (numbers + count,) * count)
    return place.images(root, (everything, everything), {"": truth}, cache)


def _copydays(place: Place, root: Path, cache: Path | None = None) -> Searched:
    """The strongly altered copies are the queries; right is the original whose name begins with the same four digits.

    Images in `distractors/`, if there are any, are searched too: whose they are is not published.
    """
    folder = root / place.name
    originals, copies, others = (_images(folder, part) for part in ("original", "strong", "distractors"))
    block = np.array([Path(path).name[:4] for path in originals])
    right = tuple(np.flatnonzero(block == Path(path).name[:4]) for path in copies)
    truth = Truth(right, _nothing(len(copies)))
    if others:
        place = replace(place, published=(place.published[0] + len(others), place.published[1]))
    images = place.images(root, ([*originals, *others], copies), {"": truth}, cache)
    return replace(images, subset=f"with {len(others):,} distractors") if others else images


def _images(folder: Path, part: str) -> list[str]:
    return sorted(f"{part}/{path.name}" for path in (folder / part).glob("*") if path.suffix.lower() in SUFFIXES)


def _nothing(count: int) -> tuple[Numbers, ...]:
    return (np.zeros(0, np.int64),) * count


_OXFORD_AND_PARIS = (
    "run the download.py of https://github.com/filipradenovic/revisitop, put its data/datasets/* in $CGH_DATA"
)
_REVISITED = "https://arxiv.org/abs/1803.11285"


def _entry(description: str, source: str, read: Callable[..., Searched], place: Place) -> RelatedImages:
    return RelatedImages(description, source, partial(read, place), "retrieval")


CATALOG = {
    "roxford5k": _entry(
        "Oxford, revisited: 4,993 photographs, 70 queries; easy, medium and hard",
        _REVISITED,
        _revisited,
        Place("roxford5k", (4_993, 70), _OXFORD_AND_PARIS),
    ),
    "rparis6k": _entry(
        "Paris, revisited: 6,322 photographs, 70 queries; easy, medium and hard",
        _REVISITED,
        _revisited,
        Place("rparis6k", (6_322, 70), _OXFORD_AND_PARIS),
    ),
    "met": _entry(
        "The Met: 1,003 visitors' photographs of exhibits as queries, 397,121 museum photographs",
        "https://arxiv.org/abs/2202.01747",
        _met,
        Place("met", (397_121, 1_003), "unpack images and ground_truth (http://cmp.felk.cvut.cz/met) in $CGH_DATA/met"),
    ),
    "amstertime": _entry(
        "AmsterTime: 1,231 places in Amsterdam, historical and current photographs",
        "https://arxiv.org/abs/2203.16291",
        _amstertime,
        Place("amstertime", (2_462, 2_462), "unpack https://doi.org/10.4121/19580806 in $CGH_DATA/amstertime"),
    ),
    "copydays": _entry(
        "Copydays, strong: 229 strongly altered copies of 157 photographs",
        "https://lear.inrialpes.fr/~jegou/data.php#copydays",
        _copydays,
        Place("copydays", (157, 229), "unpack INRIA Copydays' original/ and strong/ in $CGH_DATA/copydays"),
    ),
}
