"""Images with the depth or the surface normal of every pixel: NYUv2, KITTI, the embedded scenes, a folder of your own.

A depth is in metres along the optical axis, and 0 where it is not known. A normal is a unit vector (right, down, away
from the camera), and (0, 0, 0) where it is not known.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cgh_bench.core.config import fingerprint
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.data import catalog, data_root, find_folder
from cgh_bench.data.contents import contents
from cgh_bench.data.decoding import read_image, read_values
from cgh_bench.data.demo.scenes import NAME as SCENES
from cgh_bench.data.dense import locate
from cgh_bench.data.image_set import RelatedImages
from cgh_bench.data.layout import SUBSET
from cgh_bench.data.segmented import MappedPair, own_places, paired_files, scenes_are_there

if TYPE_CHECKING:
    from torch import Tensor

Values = NDArray[np.float32]
"""Depths (H, W) or normals (H, W, 3)."""
Quantity = Literal["depth", "normals"]
MILLIMETRES = 1_000
"""Levels of a 16-bit PNG per metre (KITTI: 256)."""


@dataclass(frozen=True, eq=False)
class MeasuredImages:
    """`N` images and what is known of each pixel, read one at a time."""

    name: str
    """Dataset and split."""
    paths: tuple[Path, ...]
    fingerprint: str
    """Sixteen hex digits of the content."""
    values: Callable[[int], Values]
    """What is known of an image, by its number, before it is cut."""
    cut: tuple[int, int] | None = None
    """Height and width of the part at the bottom, in the middle, that images are cut to; none: they are whole."""
    in_memory: ClassVar = False

    def __len__(self) -> int:
        return len(self.paths)

    def called(self, index: int) -> str:
        """The file of image `index`."""
        return str(self.paths[index])

    def image(self, index: int) -> "Tensor":
        """Image `index` as (3, H, W) uint8 RGB."""
        image = read_image(self.paths[index])
        return image[:, *self._part(image.shape[1], image.shape[2])]

    def _part(self, height: int, width: int) -> tuple[slice, slice]:
        down, across = self.cut or (height, width)
        left = max(0, (width - across) // 2)
        return slice(max(0, height - down), height), slice(left, left + across)

    def both(self, index: int) -> "tuple[Tensor, Values]":
        """Image `index` and its values, which must be of one size and not all unknown.

        Raises:
            UserError: they are not; the file is named.
        """
        image, values = self.image(index), self.values(index)
        values = values[self._part(*values.shape[:2])]
        if tuple(image.shape[1:]) != values.shape[:2]:
            sizes = f"{values.shape[1]}x{values.shape[0]}", f"{image.shape[2]}x{image.shape[1]}"
            raise UserError(f"the map of {self.called(index)} is {sizes[0]}, but the image is {sizes[1]}")
        if not values.any():
            raise UserError(f"the map of {self.called(index)} is zero everywhere (unknown); remove the image")
        return image, values


MeasuredPair = MappedPair[MeasuredImages]
Both = tuple[MeasuredImages, MeasuredImages, str]


@dataclass(frozen=True)
class Listed:
    """A published dataset: a file for each split lists an image and its depth a line."""

    folder: str
    lists: tuple[str, str]
    """The files that list train and test."""
    images: str
    """The folder of the images, below `folder`."""
    depths: str
    levels: int
    """A metre in the PNGs."""
    counts: tuple[int, int]
    """Images with a depth, as published."""
    how: str
    cut: tuple[int, int] | None = None
    """See `MeasuredImages`."""


LISTED = {
    # The layout of zhyever/Monocular-Depth-Estimation-Toolbox, which DINOv2's depth was trained in; the lists are of
    # cleinc/bts. The images of its list that have no depth (KITTI's `None`) are left out.
    "nyuv2": Listed(
        "nyu",
        ("nyu_train.txt", "nyu_test.txt"),
        "",
        "",
        MILLIMETRES,
        (24_231, 654),
        "unpack BTS's NYUv2 (sync.zip and the test images) in $CGH_DATA/nyu beside nyu_train.txt and nyu_test.txt",
    ),
    "kitti_depth": Listed(
        "kitti",
        ("kitti_eigen_train.txt", "kitti_eigen_test.txt"),
        "input",
        "gt_depth",
        256,
        (23_158, 652),
        "unpack KITTI's raw images in $CGH_DATA/kitti/input and data_depth_annotated.zip in $CGH_DATA/kitti/gt_depth, "
        "beside kitti_eigen_train.txt and kitti_eigen_test.txt",
        cut=(352, 1_216),  # the part that KITTI's own depth benchmark takes ("KB crop")
    ),
}


def load_measured(name: str, quantity: Quantity, cache: Path) -> MeasuredPair:
    """The train and the val images of the dataset `name`.

    Args:
        name: `animal_scenes`, a published dataset (depth only), or a folder with `{train,val}/images/NAME.jpg` and
            `{train,val}/depth/NAME.png` (16 bits, millimetres, 0 unknown) or `{train,val}/normals/NAME.png` (RGB,
            127.5 + 127.5 times right, down and away; black unknown).
        quantity: what is known of the pixels.
        cache: where hashes of files are remembered.

    Raises:
        UserError: absent, incomplete, or no such map.
    """
    if not name:
        raise UserError(f"this task needs your data: --data FOLDER (with {{train,val}}/{{images,{quantity}}})")
    if name == SCENES:
        found = partial(_scenes, quantity, cache)
        return MeasuredPair(name, found, there=scenes_are_there(cache))
    entry = catalog().get(name)
    if isinstance(entry, RelatedImages) and entry.kind == quantity:
        return entry.load(data_root(), cache)
    folder = find_folder(name)
    if not folder:
        known = [known for known, other in catalog().items() if other.kind == quantity]
        raise unknown(f"dataset with {quantity}", name, [SCENES, *known])
    return _own(folder, quantity, cache)


def read_depth(path: Path, levels: int = MILLIMETRES) -> Values:
    """The depth (H, W) in metres of a PNG of whole numbers, of which there are `levels` to a metre."""
    values = read_values(path)
    if values.ndim != 2 or values.dtype.kind not in "iu" or values.dtype == np.uint8:
        raise UserError(f"{path} is not a depth map; expected 16-bit grey with {levels} levels per metre")
    return (values / levels).astype(np.float32)


def read_normals(path: Path) -> Values:
    """The unit normals (H, W, 3) of an RGB PNG; black is unknown."""
    values = read_values(path)
    if values.ndim != 3 or values.shape[2] != 3:
        raise UserError(f"{path} is not a normal map; expected 8-bit RGB, 127.5 + 127.5 times the vector")
    vectors = values.astype(np.float32) / 127.5 - 1
    lengths = np.linalg.norm(vectors, axis=2, keepdims=True)
    unit: Values = np.where(values.any(axis=2, keepdims=True), vectors / np.maximum(lengths, 1e-6), 0)
    return unit.astype(np.float32)


def _own(folder: Path, quantity: Quantity, cache: Path) -> MeasuredPair:
    read = read_depth if quantity == "depth" else read_normals
    found = {split: paired_files(*places) for split, places in own_places(folder, (quantity,)).items()}
    files = [str(path.relative_to(folder)) for paths in found.values() for both in paths for path in both]
    content = fingerprint([quantity, [each.hex() for each in contents(folder, files, cache)]])
    both = _both(found, read, content, folder.name)
    return MeasuredPair(folder.name, lambda: both)


def _both(
    splits: Mapping[str, Sequence[tuple[Path, Path]]],
    read: Callable[[Path], Values],
    content: str,
    name: str,
    cut: tuple[int, int] | None = None,
) -> Both:
    train, val = (
        MeasuredImages(
            f"{name}/{split}",
            tuple(image for image, _ in paths),
            fingerprint([content, split]),
            partial(_read_at, read, [path for _, path in paths]),
            cut,
        )
        for split, paths in splits.items()
    )
    return train, val, content


def _read_at(read: Callable[[Path], Values], maps: Sequence[Path], index: int) -> Values:
    return read(maps[index])


def _listed(name: str, layout: Listed, root: Path, cache: Path | None) -> MeasuredPair:
    folder = root / layout.folder
    splits: dict[str, Sequence[tuple[Path, Path]]] = {}
    for split, listed, count in zip(("train", "val"), layout.lists, layout.counts, strict=True):
        try:
            lines = [
                line.split() for line in (folder / listed).read_text(encoding="utf-8").splitlines() if line.strip()
            ]
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{folder / listed} is missing or not a valid list; to get {name}, {layout.how}") from None
        known = [line for line in lines if len(line) > 1 and line[1] != "None"]
        splits[split] = tuple(
            (folder / layout.images / image.lstrip("/"), folder / layout.depths / depth.lstrip("/"))
            for image, depth, *_ in known
        )
        if not known or (len(known) != count and not (folder / SUBSET).exists()):
            raise UserError(
                f"{folder / listed} lists {len(known)} images with a depth, {count} were published (to use fewer, "
                f"create an empty file {folder / SUBSET}); to get {name}, {layout.how}"
            )
    files = [path for paths in splits.values() for both in paths for path in both]
    absent = next((path for path in files if not path.is_file()), None)
    if absent:
        raise UserError(f"{absent} is listed but missing; to get {name}, {layout.how}")
    names = [str(path.relative_to(folder)) for path in files]
    content = fingerprint([name, [each.hex() for each in contents(folder, names, cache)]])
    given, published = sum(map(len, splits.values())), sum(layout.counts)
    subset = "" if given == published else f"{given:,} of {published:,} images"
    both = _both(splits, partial(read_depth, levels=layout.levels), content, name, layout.cut)
    return MeasuredPair(name, lambda: both, subset)


def _scenes(quantity: Quantity, cache: Path) -> Both:
    """The embedded scenes as cut-outs that stand upright before a floor that rises away from the camera."""
    located = locate(SCENES, cache)
    parts = []
    for split in ("train", "val"):
        folder = located.root / SCENES / split
        coco = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
        paths = tuple(folder / "images" / entry["file_name"] for entry in coco["images"])
        owners: list[list[dict[str, Any]]] = [[] for _ in paths]
        for annotation in coco["annotations"]:  # the first of an image is the farthest
            owners[annotation["image_id"] - 1].append(annotation)
        content = fingerprint([located.fingerprint, split, quantity, GROUND, FIRST, STEP])
        parts.append(MeasuredImages(f"{SCENES}/{split}", paths, content, partial(_scene, owners, quantity)))
    train, val = parts
    return train, val, fingerprint([train.fingerprint, val.fingerprint])


GROUND, FIRST, STEP = 4.0, 2.1, 0.4
"""Metres: the ground in the middle of a scene; the farthest animal; from one animal to the next."""


def _scene(owners: Sequence[Sequence[dict[str, Any]]], quantity: Quantity, index: int) -> Values:
    from pycocotools import mask as run_length

    height, width = owners[index][0]["segmentation"]["size"]
    tilted = np.array([0, -(0.5**0.5), -(0.5**0.5)], np.float32)
    planes = ground(height, width) if quantity == "depth" else np.tile(tilted, (height, width, 1))
    for number, annotation in enumerate(owners[index]):
        own = run_length.decode(run_length.frPyObjects(annotation["segmentation"], height, width)).astype(bool)
        planes[own] = FIRST - STEP * number if quantity == "depth" else (0, 0, -1)
    return planes


def ground(height: int, width: int) -> Values:
    """The depth (H, W) of the plane y + z = GROUND, which a camera sees whose focal length is the height."""
    down = (np.arange(height, dtype=np.float32) - (height - 1) / 2) / height
    return np.tile((GROUND / (1 + down))[:, None], (1, width)).astype(np.float32)


CATALOG = {
    "nyuv2": RelatedImages(
        description="NYU Depth v2: indoor scenes with depth, 24,231 train, 654 test",
        source="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html; the lists of cleinc/bts",
        load=partial(_listed, "nyuv2", LISTED["nyuv2"]),
        kind="depth",
    ),
    "kitti_depth": RelatedImages(
        description="KITTI, the split of Eigen et al.: streets with sparse depth, 23,158 train, 652 test",
        source="https://www.cvlibs.net/datasets/kitti; the lists of cleinc/bts",
        load=partial(_listed, "kitti_depth", LISTED["kitti_depth"]),
        kind="depth",
    ),
}
