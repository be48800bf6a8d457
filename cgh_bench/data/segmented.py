"""Images with a class for every pixel: a fetched dataset, `animal_scenes`, or a folder of your own in its layout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError
from cgh_bench.data import find_folder, is_known
from cgh_bench.data.annotations import IGNORED
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import read_image, read_values
from cgh_bench.data.demo.scenes import NAME as SCENES
from cgh_bench.data.demo.silhouettes import CLASSES as ANIMALS
from cgh_bench.data.dense import DenseData, layouts, locate
from cgh_bench.data.folder import SUFFIXES
from cgh_bench.data.layout import Layout, files_of
from cgh_bench.data.layouts import cityscapes, voc
from cgh_bench.data.own import WORDS

if TYPE_CHECKING:
    from torch import Tensor

Paths = tuple[tuple[Path, Path], ...]
"""The files of each image and its map."""
View = Callable[[int, "Tensor", NDArray[np.uint8]], "tuple[Tensor, NDArray[np.uint8]]"]
VOID = IGNORED
"""What pixels of no class have in a map."""
MASKS = ("masks", "annotations")
"""What the folder of the masks of your own may be called."""
CLASSES_FILE = "classes.txt"
"""In a folder of your own: the name of the class of each value from 0, one per line."""
NAMES = {
    SCENES: ("background", *ANIMALS),
    "voc2012_aug": ("background", *voc.CLASSES),
    "cityscapes": cityscapes.CLASSES_OF_MAPS,
}
NO_CLASS = {"ade20k"}
"""Datasets whose value 0 is no class: it counts as `VOID`, and the classes begin with value 1."""


@dataclass(frozen=True, eq=False)
class SegmentedImages:
    """`N` images and their maps, read one at a time."""

    name: str
    """Dataset and split ("animal_scenes/val")."""
    classes: tuple[str, ...]
    paths: Paths
    fingerprint: str
    """Sixteen hex digits of the content."""
    first: int = 0
    """The value of the first class in the files; values below it are `VOID`."""
    view: "View | None" = None
    """What is made of an image and its map, by the image's number; default nothing."""
    in_memory: ClassVar = False

    def __len__(self) -> int:
        return len(self.paths)

    def called(self, index: int) -> str:
        """The file of image `index`."""
        return str(self.paths[index][0])

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB.

        Raises:
            UserError: the file cannot be read.
        """
        return self.both(index)[0] if self.view else read_image(self.paths[index][0])

    def truth(self, index: int) -> NDArray[np.uint8]:
        """The map of image `index`, (H, W): indices into `classes`, or `VOID`.

        Raises:
            UserError: the file cannot be read, or has colours or a class that does not exist.
        """
        path = self.paths[index][1]
        values = read_values(path).astype(np.int64)
        if values.ndim != 2:
            raise UserError(f"{path} is a colour image; expected a map with one value per pixel")
        known = (values >= self.first) & (values < self.first + len(self.classes))
        void = (values == VOID) | ((values >= 0) & (values < self.first))
        if not (known | void).all():
            other = int(values[~(known | void)][0])
            top = self.first + len(self.classes) - 1
            raise UserError(f"{path} has the value {other}; expected {self.first} to {top} (classes) or {VOID}")
        return np.where(known, values - self.first, VOID).astype(np.uint8)

    def both(self, index: int) -> "tuple[Tensor, NDArray[np.uint8]]":
        """Image `index` and its map, which must be of one size."""
        image, truth = read_image(self.paths[index][0]), self.truth(index)
        if tuple(image.shape[1:]) != truth.shape:
            sizes = f"{truth.shape[1]}x{truth.shape[0]}", f"{image.shape[2]}x{image.shape[1]}"
            raise UserError(f"{self.paths[index][1]} is {sizes[0]}, but its image is {sizes[1]}; sizes must match")
        return self.view(index, image, truth) if self.view else (image, truth)

    def seen(self, view: "View", what: str) -> "SegmentedImages":
        """The same images under a `view`; `what` says which it is: it enters the fingerprint."""
        return replace(self, view=view, fingerprint=fingerprint([self.fingerprint, what]))

    def subset(self, rows: NDArray[np.int64]) -> "SegmentedImages":
        """The images of these numbers."""
        paths = tuple(self.paths[row] for row in rows)
        return replace(self, paths=paths, fingerprint=fingerprint([self.fingerprint, rows.tolist()]))


ImagesOf = TypeVar("ImagesOf")


@dataclass(frozen=True, eq=False)
class MappedPair(Generic[ImagesOf]):
    """What is learned from, and what is reported; the embedded scenes are written when one of these is asked for."""

    name: str
    found: Callable[[], tuple[ImagesOf, ImagesOf, str]]
    """Train, val, and the fingerprint of both; called once."""
    subset: str = ""
    """How much of the published data is there, if fewer images are meant."""
    there: bool = True
    """Whether the files are there already."""

    @cached_property
    def _found(self) -> tuple[ImagesOf, ImagesOf, str]:
        return self.found()

    @property
    def train(self) -> ImagesOf:
        """The images that are learned from."""
        return self._found[0]

    @property
    def val(self) -> ImagesOf:
        """The images that are reported."""
        return self._found[1]

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of both."""
        return self._found[2]


SegmentedPair = MappedPair[SegmentedImages]


def scenes_are_there(cache: Path) -> bool:
    """Whether the embedded scenes are written already."""
    return (cache / SCENES / "meta.json").exists()


def load_segmented(name: str, cache: Path) -> SegmentedPair:
    """The train and the val images of the dataset `name`.

    Args:
        name: `animal_scenes` (written below `cache`), a fetched dataset with maps, or a folder with
            `{train,val}/images/NAME.jpg`, `{train,val}/masks/NAME.png` (one value for each pixel, 255 for none) and
            `classes.txt` (the name of each value from 0, one per line); `images/{train,val}` is read as well.
        cache: where hashes of files are remembered.

    Raises:
        UserError: absent, incomplete, or without maps.
    """
    if not name:
        raise UserError("this task needs your data: --data FOLDER (with {train,val}/{images,masks})")
    if not is_known(name) and (folder := find_folder(name)):
        return _own(folder, cache)
    located = locate(name, cache)
    if name == SCENES:
        return SegmentedPair(name, partial(_both_scenes, located), there=scenes_are_there(cache))
    splits = _fetched(name, layouts()[name], located.root)
    both = _both(name, NAMES.get(name) or _numbered(layouts()[name], name), splits, located.fingerprint)
    return SegmentedPair(name, lambda: both, located.subset)


def _both_scenes(located: DenseData) -> tuple[SegmentedImages, SegmentedImages, str]:
    """The embedded scenes, which are written where they are not there."""
    folders = ((split, located.root / SCENES / split) for split in ("train", "val"))
    splits = {split: paired_files(place / "images", place / "masks") for split, place in folders}
    return _both(SCENES, NAMES[SCENES], splits, located.fingerprint)


def _both(
    name: str, classes: Sequence[str], splits: Mapping[str, Paths], content: str
) -> tuple[SegmentedImages, SegmentedImages, str]:
    train, val = (
        SegmentedImages(f"{name}/{split}", tuple(classes), paths, fingerprint([content, split]), int(name in NO_CLASS))
        for split, paths in splits.items()
    )
    return train, val, content


def _fetched(name: str, layout: Layout, root: Path) -> dict[str, Paths]:
    """The last part with maps is what is reported, those before it are learned from."""
    parts = [part for part in layout.parts if part.annotations.endswith(".png")]
    if len(parts) < 2:
        raise UserError(f"{name} has no segmentation maps; datasets with maps: {', '.join([*NAMES, *NO_CLASS])}")
    folder = root / layout.folder
    found = [files_of(part, folder) for part in parts]
    return {"train": tuple(chain.from_iterable(found[:-1])), "val": found[-1]}


def _numbered(layout: Layout, name: str) -> tuple[str, ...]:
    """The numbers of the classes, where their names are not known."""
    count = layout.parts[-1].classes
    assert isinstance(count, int)
    return tuple(f"class {value}" for value in range(int(name in NO_CLASS), count))


def paired_files(images_folder: Path, masks_folder: Path) -> Paths:
    """The images of a split, each with the map of its name.

    Raises:
        UserError: there are none, or an image has no map, or a map no image.
    """
    images = {path.stem: path for path in sorted(images_folder.glob("*")) if path.suffix.lower() in SUFFIXES}
    masks = {path.stem: path for path in sorted(masks_folder.glob("*.png"))}
    if not images:
        raise UserError(f"no images in {images_folder}; expected files {' '.join(SUFFIXES)}")
    if odd := sorted(images.keys() ^ masks.keys()):
        what = "mask" if odd[0] in images else "image"
        lack = f"{len(odd)} images of {images_folder} lack their mask, or masks their image"
        raise UserError(f"{lack}; {odd[0]} has no {what}")
    return tuple((path, masks[stem]) for stem, path in images.items())


def own_files(folder: Path) -> tuple[tuple[str, ...], dict[str, Paths]]:
    """The classes, and the images and maps of each split, of a folder of the user's own.

    Raises:
        UserError: a split, a mask, an image or the names of the classes are absent.
    """
    try:
        classes = (folder / CLASSES_FILE).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{folder / CLASSES_FILE} not found; it lists the class name of each mask value from 0, one per line"
        ) from None
    while classes and not classes[-1].strip():
        classes.pop()
    if not 1 <= len(classes) <= VOID:
        raise UserError(f"{folder / CLASSES_FILE} names {len(classes)} classes; expected 1 to {VOID}")
    splits = {split: paired_files(*places) for split, places in own_places(folder).items()}
    return tuple(name.strip() for name in classes), splits


def own_places(folder: Path, kinds: Sequence[str] = MASKS) -> dict[str, tuple[Path, Path]]:
    """The folders of the images and of the masks of each split: `SPLIT/images` or `images/SPLIT`, and so the masks.

    Where none is there, those that are expected. `kinds` are what the folder of the masks, or of other maps, may be
    called.
    """
    found: dict[str, tuple[Path, Path]] = {}
    for split, words in WORDS.items():
        both = [(folder / word / "images", folder / word / masks) for word in words for masks in kinds]
        both += [(folder / "images" / word, folder / masks / word) for word in words for masks in kinds]
        found[split] = next((places for places in both if all(map(Path.is_dir, places))), both[0])
    return found


def _own(folder: Path, cache: Path) -> SegmentedPair:
    classes, splits = own_files(folder)
    files = [str(path.relative_to(folder)) for paths in splits.values() for both in paths for path in both]
    content = fingerprint([classes, [found.hex() for found in contents(folder, files, cache)]])
    both = _both(folder.name, classes, splits, content)
    return SegmentedPair(folder.name, lambda: both)
