"""YOLO's form, as Ultralytics documents it: a YAML with names, train and val, and one text file of lines per image.

A line is a class and a box (centre, width and height), or a class and a polygon, as shares of the image's sides.
"""

import itertools
import os
from pathlib import Path
from typing import Any

import yaml

from cgh_bench.core.errors import UserError
from cgh_bench.data.annotations import LEAST_POLYGON, Facts
from cgh_bench.data.folder import SUFFIXES
from cgh_bench.data.image_set import Split
from cgh_bench.data.layout import image_facts
from cgh_bench.data.own import WORDS, Format, Said, categories, numbered

BOX = 4
"""Numbers of a box."""
TOLERANCE = 1e-3
"""The share of the image's side by which a rounded number may be beyond its edge."""


def _description(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue
        if isinstance(found, dict) and {"names", "train"} <= set(found):
            return path, found
    return None


def _read(folder: Path, cache: Path | None) -> dict[Split, Said]:
    described = _description(folder)
    assert described is not None
    path, document = described
    names = _names(path, document["names"])
    found: dict[Split, Said] = {}
    for split, words in WORDS.items():
        given = next((document[word] for word in words if document.get(word)), None)
        if given is None:
            raise UserError(f"{path} names no {split} images; expected {split}: FOLDER")
        places = given if isinstance(given, list) else [given]
        images = [image for place in places for image in _images(path, document, str(place))]
        if not images:
            raise UserError(
                f"{given}, the {split} of {path}, has no images below {folder}; expected a folder or a list"
            )
        found[split] = _said(path, images, names, cache)
    return found


def _names(path: Path, names: Any) -> list[str]:
    """The classes, listed or by number.

    Raises:
        UserError: they are neither, or a number is left out.
    """
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"{path} numbers its names {sorted(names, key=str)[:5]}, …; expected 0 to {len(names) - 1}")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has the names {names!r:.80}; expected a list of classes")
    return [str(name) for name in names]


def _images(path: Path, document: dict[str, Any], place: str) -> list[Path]:
    """The images of a folder, or of a list; Roboflow's `../train/images` lies beside the YAML."""
    root = path.parent / str(document.get("path") or "")
    for base in (root if root.is_dir() else path.parent, path.parent):
        for name in (place, place.removeprefix("../")):
            at = base / name
            if at.is_dir():
                return sorted(p for p in at.rglob("*") if p.suffix.lower() in SUFFIXES)
            if at.is_file():
                lines = at.read_text(encoding="utf-8", errors="replace").splitlines()
                return [base / line.strip() for line in lines if line.strip() and "\0" not in line]
    return []


def _labels(image: Path) -> Path:
    """The text file of an image: the last `images` of its path is `labels` there, else it lies beside the image."""
    before, images, after = str(image.with_suffix(".txt")).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}") if images else image.with_suffix(".txt")


def _said(path: Path, images: list[Path], names: list[str], cache: Path | None) -> Said:
    said = Said(path, {"images": [], "annotations": [], "categories": categories(names)})
    common = Path(os.path.commonpath([image.parent for image in images]))
    facts = image_facts(common, [str(image.relative_to(common)) for image in images], cache)
    if not any(_labels(image).is_file() for image in images):
        said.wrong.append(f"{_labels(images[0])} and all other labels are absent")
        return said
    lines: list[Facts] = []
    for number, (image, seen) in enumerate(zip(images, facts, strict=True), start=1):
        if seen["wrong"]:
            said.wrong += [f"{image} {fault}" for fault in seen["wrong"]]
            continue
        width, height = seen["size"]
        said.document["images"].append({"id": number, "file_name": str(image), "width": width, "height": height})
        file = _labels(image)
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""  # none: only background
        for place, words in enumerate(map(str.split, text.splitlines()), start=1):
            if words and (fault := _fault(words, len(names))):
                said.wrong.append(f"{file} {fault} (line {place})")
            elif words:
                lines.append({"image_id": number, **_object(words, width, height)})
    said.document["annotations"] = numbered(lines)
    return said


def _fault(words: list[str], classes: int) -> str:
    try:
        label, *numbers = map(float, words)
    except ValueError:
        return f"has {' '.join(words)[:40]!r}; expected a class and numbers"
    if not label.is_integer() or not 0 <= label < classes:
        return f"has the class {words[0][:20]}, only 0 to {classes - 1} are named"
    if len(numbers) != BOX and (len(numbers) < LEAST_POLYGON or len(numbers) % 2):
        return f"has {len(numbers)} numbers behind the class; expected the 4 of a box or the pairs of a polygon"
    if not all(-TOLERANCE <= number <= 1 + TOLERANCE for number in numbers):
        return "has a number outside 0 to 1; expected shares of the image's sides"
    return ""


def _object(words: list[str], width: int, height: int) -> Facts:
    numbers = [float(word) * side for word, side in zip(words[1:], itertools.cycle((width, height)), strict=False)]
    found: Facts = {"category_id": 1 + int(float(words[0]))}
    if len(numbers) == BOX:
        x, y, w, h = numbers
        return found | {"bbox": [x - w / 2, y - h / 2, w, h]}
    xs, ys = numbers[::2], numbers[1::2]
    return found | {"bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], "segmentation": [numbers]}


FORMATS = {
    "YOLO": Format(
        "data.yaml with names, train and val; images/ and labels/", lambda folder: bool(_description(folder)), _read
    )
}
