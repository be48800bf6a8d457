"""What one file of a detection or segmentation dataset says, and what is wrong with it.

Each reader returns a plain dictionary that is remembered as JSON until the file changes (`contents`): `digest` changes
with the content, not with the order or the compression; `size` is (width, height); `wrong` lists what is wrong.
"""

import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from cgh_bench.core.errors import one_line
from cgh_bench.data import lvis
from cgh_bench.data.decoding import UNDECODABLE

Facts = dict[str, Any]
Form = Literal["COCO", "keypoints", "LVIS"]
"""What a JSON file holds: COCO's objects, these with the keypoints of persons, or LVIS's objects."""
IGNORED = 255
"""The value of a map's pixels that belong to no class."""
CORNERS = ("xmin", "ymin", "xmax", "ymax")
"""The sides of a box in VOC."""
LEAST_POLYGON = 6
"""Numbers of a polygon: three points."""
LARGEST = 1e9
"""No coordinate or area is as large; NaN is not smaller."""
SHOWN = 20
"""The number of faults that are listed for one file at most."""
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "TIFF", "WEBP", "PPM")
"""What every framework's decoder reads, by Pillow's names."""
KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
"""COCO's keypoints of a person."""
ORIENTATION = 0x0112
TURNED = range(5, 9)
"""The EXIF orientations that exchange width and height."""


def image(path: Path) -> Facts:
    """An image, decoded whole. Its `size` is that once it is turned as its EXIF orientation says, as frameworks do."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            kind, (width, height) = opened.format, opened.size
            if kind not in FORMATS:
                return {"wrong": [f"is {kind}, which not every framework reads; expected JPEG or PNG"]}
            turned = opened.getexif().get(ORIENTATION) in TURNED
            if kind != "PNG":
                opened.draft("RGB", (1, 1))  # of a JPEG, every bit is decoded, but few pixels
            opened.load()
            content = _pixels(opened) if kind == "PNG" else data  # two decoders of JPEG differ in single pixels
    except UNDECODABLE as error:
        return {"wrong": [f"is not a readable image ({one_line(error)})"]}
    size = [height, width] if turned else [width, height]
    return {"digest": _digest(content), "size": size, "turned": turned, "wrong": []}


def class_map(path: Path, classes: int) -> Facts:
    """A map of class indices: 0 to `classes` - 1 and 255 are accepted, anything if `classes` is 0."""
    try:
        with Image.open(path) as opened:
            values = np.asarray(opened)
            content = _pixels(opened)
    except UNDECODABLE as error:
        return {"wrong": [f"is not a readable image ({one_line(error)})"]}
    if values.ndim != 2:
        return {"wrong": ["has colours, not indices of classes"]}
    wrong = []
    if classes:
        other = values[(values >= classes) & (values != IGNORED)]
        if other.size:
            wrong.append(f"has the class {other.min()}, only 0 to {classes - 1} and {IGNORED} are expected")
    known = values != IGNORED if classes else values > 0
    size = [values.shape[1], values.shape[0]]
    return {"digest": _digest(content), "size": size, "objects": int(known.any()), "wrong": wrong}


def _pixels(opened: Image.Image) -> bytes:
    """What a lossless file holds, however it is packed; a palette says only how indices are shown."""
    return f"{opened.mode}{opened.size}".encode() + opened.tobytes()


def voc(path: Path, classes: Sequence[str], scored: bool) -> Facts:
    """An XML file of VOC. Where it is `scored`, it needs what VOC's evaluation reads of it."""
    size, objects, wrong = read_voc(path)
    if not wrong and not all(map(str.isdecimal, size)):
        wrong = ["has no width and height in its size"]
    if wrong:
        return {"wrong": wrong}
    wrong = [fault for number, item in enumerate(objects, 1) for fault in voc_faults(number, item, classes, scored)]
    facts = [size, sorted(json.dumps(item, sort_keys=True) for item in objects)]
    digest = _digest(json.dumps(facts).encode())
    return {"digest": digest, "size": list(map(int, size)), "objects": len(objects), "wrong": wrong[:SHOWN]}


def read_voc(path: Path) -> tuple[list[str], list[dict[str, str | None]], list[str]]:
    """Width and height, the objects, and what is wrong, of an XML file of VOC; all but the last as texts."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        return [], [], [f"is not valid XML ({one_line(error)})"]
    size = [root.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    return size, [_voc_object(item) for item in root.findall("object")], []


def _voc_object(item: ElementTree.Element) -> dict[str, str | None]:
    names = ("name", "pose", "truncated", "difficult", *(f"bndbox/{corner}" for corner in CORNERS))
    found = {name: item.findtext(name) for name in names}
    return {name: None if text is None else text.strip() for name, text in found.items()}


def voc_faults(number: int, item: dict[str, str | None], classes: Sequence[str], scored: bool) -> Iterator[str]:
    """What is wrong with object `number` of `read_voc`."""
    if item["name"] not in classes:
        yield f"names the class {item['name']!r} (object {number}), which is none of the {len(classes)}"
    corners = [item[f"bndbox/{corner}"] or "" for corner in CORNERS]
    number_form = r"\d+" if scored else r"\d+(\.\d+)?"
    if not all(re.fullmatch(number_form, corner) for corner in corners):
        kind = "whole numbers" if scored else "numbers"
        yield f"has an object ({number}) without the {kind} {', '.join(CORNERS)} in its bndbox"
    else:
        left, top, right, bottom = map(float, corners)
        if right < left or bottom < top:
            yield f"has an object ({number}) whose box ends before it begins"
    if scored:
        absent = [name for name in ("pose", "truncated", "difficult") if item[name] is None]
        absent += [name for name in ("truncated", "difficult") if not re.fullmatch(r"\d+", item[name] or "0")]
        if absent:
            yield f"has an object ({number}) without {' and '.join(absent)}, which VOC's evaluation reads"


def coco(path: Path, classes: Sequence[str] | int, scored: bool, form: Form = "COCO") -> Facts:
    """What `coco_facts` says of a JSON file of COCO's form, or of LVIS's, which must have as many as `classes`."""
    document, wrong = read_coco(path)
    if form == "LVIS" and not wrong:
        wrong = _shown([*lvis.faults(document, classes, scored)])
        document = document if wrong else lvis.as_coco(document)
    if wrong:
        return {"wrong": wrong}
    names = [item["name"] for item in document["categories"]] if isinstance(classes, int) else classes
    return coco_facts(document, names, scored, form)


def read_coco(path: Path) -> tuple[dict[str, list[Facts]], list[str]]:
    """The lists `images`, `annotations` and `categories` of a JSON file of COCO's form, or what is wrong with it."""
    try:
        whole = json.loads(path.read_bytes())
        document = {key: whole[key] for key in ("images", "annotations", "categories")}
        if not all(isinstance(item, dict) for each in document.values() for item in each):
            raise TypeError("an entry is not an object")
    except (OSError, ValueError, RecursionError) as error:
        return {}, [f"is cut short, or not valid JSON ({one_line(error)})"]
    except (TypeError, KeyError) as error:
        return {}, [f"is not of COCO's form ({one_line(error)}); it has lists images, annotations, categories"]
    return document, []


def coco_facts(document: dict[str, list[Facts]], classes: Sequence[str], scored: bool, form: Form = "COCO") -> Facts:
    """What COCO's lists say; `images` has width, height, digest and number of objects of each, by file name.

    Ids and their order are free: classes are known by their names. Where it is `scored`, it must hold what
    pycocotools needs.
    """
    images, annotations, categories = (document[key] for key in ("images", "annotations", "categories"))
    faults = [
        *_category_faults(categories, classes),
        *_repeated("image ids", (item.get("id") for item in images)),
        *_repeated("file names", (item.get("file_name") for item in images)),
        *_repeated("annotation ids", (item.get("id") for item in annotations)),
        *_image_faults(images),
    ]
    if not images:
        faults.append("lists no image")
    if faults:
        return {"wrong": _shown(faults)}
    names = {category["id"]: category["name"] for category in categories}
    sizes = {item["id"]: (item["width"], item["height"]) for item in images}
    found: dict[Any, list[str]] = defaultdict(list)
    for item in annotations:
        fault = _annotation_fault(item, sizes, names, scored) or (keypoint_fault(item) if form == "keypoints" else "")
        if fault:
            faults.append(f"annotation {item.get('id')!r} {fault}")
        else:
            said = [names[item["category_id"]], [*map(float, item["bbox"])], item["iscrowd"], float(item["area"])]
            drawn = [item.get("segmentation"), *([item["keypoints"]] if "keypoints" in item else [])]
            found[item["image_id"]].append(json.dumps([*said, *drawn], sort_keys=True))
    if form == "keypoints" and not any(item.get("num_keypoints") for item in annotations):
        faults.append(f"has no keypoint in any of {len(images)} images")
    by_name = {
        item["file_name"]: [*sizes[item["id"]], _digest("\n".join(sorted(mine) + lists).encode()), len(mine)]
        for item in images
        for mine, lists in ((found[item["id"]], [str(sorted(item[key])) for key in lvis.LISTED if form == "LVIS"]),)
    }
    return {"images": by_name, "objects": len(annotations), "wrong": _shown(faults)}


def _category_faults(categories: Sequence[Facts], classes: Sequence[str]) -> Iterator[str]:
    names = [category.get("name") for category in categories]
    if sorted(map(str, names)) != sorted(classes):
        odd = sorted(set(map(str, names)) ^ set(classes))
        yield f"has {len(names)} classes, {len(classes)} are expected; they differ in {odd[:3]}"
    yield from _repeated("category ids", (category.get("id") for category in categories))


def _repeated(what: str, values: Iterator[Any]) -> Iterator[str]:
    try:
        counts = Counter(values)
    except TypeError:
        yield f"has {what} that are lists or objects"
        return
    several = [value for value, count in counts.items() if count > 1 or value is None]
    if several:
        yield f"has {len(several)} {what} that are missing or repeated, the first is {several[0]!r}"


def _image_faults(images: Sequence[Facts]) -> Iterator[str]:
    for item in images:
        sides = item.get("width"), item.get("height")
        if not isinstance(item.get("file_name"), str) or not all(isinstance(side, int) and side > 0 for side in sides):
            yield f"image {item.get('id')!r} has no file_name, or no width and height"


def _annotation_fault(item: Facts, sizes: dict[Any, tuple[int, int]], names: dict[Any, str], scored: bool) -> str:
    absent = [
        key for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation") if key not in item
    ]
    if absent:
        return f"has no {' and no '.join(absent)}"
    for key, known in (("image_id", sizes), ("category_id", names)):
        if isinstance(item[key], list | dict) or item[key] not in known:
            return f"has the {key} {item[key]!r}, which is not listed"
    box = item["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        return f"has the bbox {box!r}; expected left, top, width and height"
    if not is_number(item["area"]) or item["iscrowd"] not in (0, 1):
        return f"has the area {item['area']!r} and iscrowd {item['iscrowd']!r}; expected a number, and 0 or 1"
    if scored and item["id"] == 0:
        return "has the id 0, which pycocotools takes for no object; count from 1"
    return _mask_fault(item["segmentation"], sizes[item["image_id"]], scored)


def _mask_fault(mask: Any, size: tuple[int, int], scored: bool) -> str:
    if isinstance(mask, dict):
        counts = mask.get("counts")
        lengths = isinstance(counts, list) and all(isinstance(run, int) and run >= 0 for run in counts)
        good = mask.get("size") == [size[1], size[0]] and (lengths or isinstance(counts, str))
        return (
            "" if good else f"has a mask of another size than its image ({mask.get('size')}, not {[size[1], size[0]]})"
        )
    if not isinstance(mask, list) or not all(isinstance(p, list) and all(map(is_number, p)) for p in mask):
        return "has a segmentation that is neither polygons nor run lengths"
    short = [polygon for polygon in mask if len(polygon) < LEAST_POLYGON or len(polygon) % 2]
    if scored and (short or not mask):  # in training, frameworks leave such an object out
        return "has a polygon of fewer than three points, which pycocotools cannot read"
    return ""


def keypoint_fault(item: Facts) -> str:
    """What is wrong with the keypoints of an annotation; empty if nothing is."""
    points = item.get("keypoints")
    complete = isinstance(points, list) and len(points) == 3 * len(KEYPOINTS) and all(map(is_number, points))
    if complete and isinstance(item.get("num_keypoints"), int):
        return ""
    return f"has not x, y and visibility of {len(KEYPOINTS)} keypoints, and num_keypoints"


def is_number(value: Any) -> bool:
    """Whether it is a number that a coordinate or an area can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _shown(faults: Sequence[str]) -> list[str]:
    more = len(faults) - SHOWN
    return [*faults[:SHOWN], *([f"has {more} more such faults"] if more > 0 else [])]


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
