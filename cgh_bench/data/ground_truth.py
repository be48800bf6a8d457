"""Ground truth of the val images of any detection or segmentation dataset, read from its own files."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data import dense, layout, lvis
from cgh_bench.data.annotations import Form
from cgh_bench.data.demo import scenes as embedded
from cgh_bench.data.layout import Part
from cgh_bench.data.layouts import voc

SHOWN = 4
BACKGROUND, NO_CLASS = "background", ""


@dataclass(frozen=True)
class Objects:
    """Annotated objects, in COCO's format."""

    images: Path
    """The folder of the entries' file names."""
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    shown: tuple[dict[str, Any], ...]
    """The entries of the few images that are shown: the first with one object, the first with two, and so on."""
    annotations: tuple[dict[str, Any], ...]
    """At least those of the images that are shown."""
    file: Path | None
    """All annotations as COCO's JSON; None if the dataset has no such file, or rules of its own."""

    def label(self, line: Mapping[str, Any]) -> int:
        """The index of the class of an annotation or a detection."""
        if "category" in line:
            return self.classes.index(line["category"])
        return self.category_ids.index(line["category_id"])


@dataclass(frozen=True)
class Maps:
    """Class maps."""

    pairs: tuple[tuple[Path, Path], ...]
    """Each val image and its map; the map predicted for it has the image's name."""
    values: tuple[str, ...]
    """The class of each pixel value from 0 on; `NO_CLASS` for none."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that are drawn, in the order of the values of `drawn`."""
        return self.values[1:] if self._clear else self.values

    def drawn(self, path: Path) -> NDArray[np.uint8]:
        """A map (H, W), true or predicted: 0 where nothing is drawn, c + 1 for class c."""
        values = np.asarray(Image.open(path))
        known = values < len(self.values)
        return np.where(known, values if self._clear else values + 1, 0).astype(np.uint8)

    @property
    def _clear(self) -> bool:
        return self.values[0] in (BACKGROUND, NO_CLASS)


def objects(name: str, located: dense.DenseData) -> Objects | None:
    """The objects of the dataset `name`; None if they are in a format that is not read."""
    if isinstance(located, dense.Own):
        return of_coco(located.root, located.file.with_name("val.json"))
    if name == embedded.NAME:
        val = located.root / name / "val"
        return of_coco(val / "images", val / "annotations.json")
    part = _last(name, (".json", ".xml"))
    if part is None:
        return None
    folder = located.root / dense.layouts()[name].folder
    images = folder / part.images.split("{}")[0]
    if part.annotations.endswith(".json"):
        return of_coco(images, folder / part.annotations, part.form)
    return _of_voc(part, folder)


def of_coco(images: Path, file: Path, form: Form = "COCO") -> Objects:
    """The objects of a COCO JSON."""
    coco = _coco(file, form)
    categories = sorted(coco["categories"], key=lambda category: category["id"])
    counts = Counter(annotation["image_id"] for annotation in coco["annotations"])
    return Objects(
        images,
        tuple(category["name"] for category in categories),
        tuple(category["id"] for category in categories),
        _first_of_each_count((entry, counts[entry["id"]]) for entry in coco["images"]),
        tuple(coco["annotations"]),
        None if form == "LVIS" else file,
    )


def _coco(file: Path, form: Form) -> Any:
    document = json.loads(file.read_text(encoding="utf-8"))
    return lvis.as_coco(document) if form == "LVIS" else document


def _of_voc(part: Part, folder: Path) -> Objects:
    """The objects of one XML per image, whose corners are inclusive and count from 1; class ids are indices."""
    assert isinstance(part.classes, tuple)
    found: dict[str, list[dict[str, Any]]] = {}
    place = {name: index for index, name in enumerate(part.classes)}

    def entries() -> Iterator[tuple[dict[str, Any], int]]:
        for name in layout.image_names(part, folder):
            root = ElementTree.parse(folder / part.annotations.format(name)).getroot()
            found[name] = [voc_object(name, item, place) for item in root.iterfind("object")]
            yield {"id": name, "file_name": Path(part.images.format(name)).name}, len(found[name])

    shown = _first_of_each_count(entries())
    lines = tuple(line for entry in shown for line in found[entry["id"]])
    return Objects(folder / part.images.split("{}")[0], part.classes, tuple(place.values()), shown, lines, None)


def voc_object(name: str, item: ElementTree.Element, place: Mapping[str, int]) -> dict[str, Any]:
    """The object of an XML of VOC in COCO's form."""
    left, top, right, bottom = (float(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
    box = (left - 1, top - 1, right - left + 1, bottom - top + 1)
    return {"image_id": name, "category_id": place[item.findtext("name") or ""], "bbox": box}


def boxed_images(name: str, part: int, located: dense.DenseData) -> tuple[tuple[Path, NDArray[np.float64]], ...]:
    """The images of a dataset with the boxes of their objects, (n, 4) left, top, right, bottom; crowds are left out.

    Args:
        name: `animal_scenes` (its val images), or a dataset with boxes in VOC's or COCO's form.
        part: which part of the dataset's layout.
        located: where it is.

    Raises:
        UserError: the dataset has no such part with boxes.
    """
    if name == embedded.NAME:
        return _boxes_of_coco(located.root / name / "val/images", located.root / name / "val/annotations.json")
    known, folder = dense.layouts()[name].parts, located.root / dense.layouts()[name].folder
    if not 0 <= part < len(known) or not known[part].annotations.endswith((".json", ".xml")):
        raise UserError(f"part {part} of {name} has no boxes; it has {len(known)} parts, counted from 0")
    chosen = known[part]
    images = folder / chosen.images.split("{}")[0]
    if chosen.annotations.endswith(".json"):
        return _boxes_of_coco(images, folder / chosen.annotations, chosen.form)
    assert isinstance(chosen.classes, tuple)
    place = {label: index for index, label in enumerate(chosen.classes)}
    found = []
    for image, annotation in layout.files_of(chosen, folder):
        root = ElementTree.parse(annotation).getroot()
        boxes = [voc_object(image.stem, item, place)["bbox"] for item in root.iterfind("object")]
        found.append((image, _corners(boxes)))
    return tuple(found)


def _boxes_of_coco(images: Path, file: Path, form: Form = "COCO") -> tuple[tuple[Path, NDArray[np.float64]], ...]:
    coco = _coco(file, form)
    boxes: dict[Any, list[Sequence[float]]] = {entry["id"]: [] for entry in coco["images"]}
    for line in coco["annotations"]:
        if not line.get("iscrowd"):
            boxes[line["image_id"]].append(line["bbox"])
    # Whole pixels, as valeoai/LOST datasets.py `extract_gt_COCO` has them.
    return tuple((images / entry["file_name"], _corners(boxes[entry["id"]]).round()) for entry in coco["images"])


def _corners(boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The corners of boxes that are given as left, top, width, height."""
    found = np.array(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)


def _first_of_each_count(entries: Iterable[tuple[dict[str, Any], int]]) -> tuple[dict[str, Any], ...]:
    """The first image with one object, the first with two, and so on: independent of any result."""
    first: dict[int, dict[str, Any]] = {}
    for entry, count in entries:
        first.setdefault(count, entry)
        if all(wanted in first for wanted in range(1, SHOWN + 1)):
            break
    first.pop(0, None)
    return tuple(first[count] for count in sorted(first)[:SHOWN])


def maps(name: str, located: dense.DenseData, metrics: Mapping[str, float]) -> Maps | None:
    """The maps of the dataset `name`; None if it has none.

    If the dataset does not name its classes, the names are those in a run's `metrics` (`IoU.NAME`), if all are there.
    """
    if isinstance(located, dense.Own):
        listed = json.loads(located.file.read_text(encoding="utf-8"))["val"]
        return Maps(tuple((Path(image), Path(mask)) for image, mask in listed), located.classes)
    if name == embedded.NAME:
        val = located.root / name / "val"
        classes = of_coco(val / "images", val / "annotations.json").classes
        pairs = tuple((path, val / "masks" / path.name) for path in sorted((val / "images").glob("*.png")))
        return Maps(pairs, (BACKGROUND, *classes))
    part = _last(name, (".png",))
    if part is None or not part.classes:  # of instances, not of classes
        return None
    assert isinstance(part.classes, int)
    pairs = layout.files_of(part, located.root / dense.layouts()[name].folder)
    return Maps(pairs, (BACKGROUND, *voc.CLASSES) if name == "voc2012_aug" else _values(name, part.classes, metrics))


def _values(name: str, count: int, metrics: Mapping[str, float]) -> tuple[str, ...]:
    """The classes' names, or numbers."""
    before = (NO_CLASS,) * (name == "ade20k")
    named = [metric.removeprefix("IoU.") for metric in metrics if metric.startswith("IoU.")]
    if len(named) != count - len(before):
        named = [f"class {value}" for value in range(len(before), count)]
    return (*before, *named)


def _last(name: str, suffixes: Sequence[str]) -> Part | None:
    """The part of a layout that is evaluated on: the last with such annotations."""
    known = dense.layouts().get(name)
    parts = [part for part in known.parts if part.annotations.endswith(tuple(suffixes))] if known else []
    return parts[-1] if parts else None
